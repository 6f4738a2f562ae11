package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"popfleet/inventory"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/speccheck"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/stack"
)

const stackKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjx2vSXzPz5vqgM5q4WmpCYmN0zkqQaO9M8wEyXmqGf fleet"

// pulumiCLI is what `make tools` builds; without it these tests are skipped.
func pulumiCLI(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/pulumi")
	if err == nil {
		if _, err = os.Stat(path); err == nil {
			return path
		}
	}
	if path, err = stack.FindCLI(t.Context()); err != nil {
		t.Skipf("no pulumi CLI: %v", err)
	}
	return path
}

// checkedLab is a lab whose every exchange is held against the provider's description.
func checkedLab(t *testing.T) (*inprocess.Lab, *speccheck.Check) {
	t.Helper()
	var mu sync.Mutex
	seen := map[string]bool{}
	check := speccheck.Load(t, speccheck.HetznerCloud).Middleware(func(v speccheck.Violation) {
		mu.Lock()
		defer mu.Unlock()
		if !seen[v.String()] {
			seen[v.String()] = true
			t.Errorf("not as the provider describes it: %s", v)
		}
	})
	lab := inprocess.Start(t, inprocess.Options{Timing: quick, Wrap: check.Wrap})
	return lab, check
}

func labDriver(t *testing.T, lab *inprocess.Lab) *hetznercloud.Driver {
	t.Helper()
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(lab.Token), Endpoint: lab.URL,
		Backoff: 5 * time.Millisecond, CallTimeout: 2 * time.Second})
	must(t, err)
	t.Cleanup(d.Close)
	return d
}

func stackFleet(nodes int) inventory.Fleet {
	pop := inventory.PoP{Name: "fsn"}
	for i := range nodes {
		pop.Nodes = append(pop.Nodes, inventory.Node{Name: fmt.Sprintf("fsn-%d", i+1)})
	}
	return inventory.Fleet{Version: 1, Name: "demo", Domain: "demo.test", PoPs: []inventory.PoP{pop}}
}

// Twenty-two objects up, nothing to do, down again, through the simulator, as the provider describes every exchange.
func TestStackAgainstTheLab(t *testing.T) {
	cli := pulumiCLI(t)
	lab, check := checkedLab(t)
	o := stack.Options{Dir: t.TempDir(), Fleet: "demo", Driver: labDriver(t, lab), CLI: cli,
		Passphrase: inventory.SecretText(passphrase)}
	w, err := stack.Want(stackFleet(6), stackKey)
	must(t, err)
	lab.Faults.Add(faults.Fault{Kind: faults.ReplyLost, Call: "create_server", Times: 1})
	lab.Faults.Add(faults.Fault{Kind: faults.Locked, Call: "change_dns_ptr", Times: 1})

	start := time.Now()
	res, err := stack.Up(t.Context(), o, w, nil)
	must(t, err)
	must(t, res.Err())
	t.Logf("up: %d objects in %.1f s", len(res.Changes), time.Since(start).Seconds())
	if len(res.Servers) != 6 || len(res.Changes) != 22 {
		t.Errorf("%d servers, changes %v", len(res.Servers), res.Changes)
	}
	servers, err := o.Driver.Servers(t.Context(), "demo")
	must(t, err)
	if len(servers) != 6 {
		t.Errorf("%d servers at the provider", len(servers))
	}

	if left := lab.Faults.List(); len(left) > 0 {
		t.Errorf("faults that never struck: %+v", left)
	}
	start = time.Now()
	res, err = stack.Up(t.Context(), o, w, nil)
	must(t, err)
	must(t, res.Err())
	t.Logf("no-op: %d changes in %.1f s", len(res.Changes), time.Since(start).Seconds())
	if len(res.Changes) != 0 {
		t.Errorf("second up changed %v", res.Changes)
	}

	for node := range res.Servers {
		o.AllowDelete = append(o.AllowDelete, node)
	}
	res, err = stack.Destroy(t.Context(), o, nil)
	must(t, err)
	must(t, res.Err())
	t.Logf("%d exchanges checked", check.Total())
}
