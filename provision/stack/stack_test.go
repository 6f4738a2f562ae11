package stack_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/hetznercloud/hetznertest"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjx2vSXzPz5vqgM5q4WmpCYmN0zkqQaO9M8wEyXmqGf fleet"

// fleet has nodes nodes in one PoP.
func fleet(nodes ...string) inventory.Fleet {
	pop := inventory.PoP{Name: "fsn"}
	for _, n := range nodes {
		pop.Nodes = append(pop.Nodes, inventory.Node{Name: n})
	}
	return inventory.Fleet{Version: 1, Name: "demo", Domain: "demo.test", PoPs: []inventory.PoP{pop}}
}

func want(t *testing.T, f inventory.Fleet) stack.Wanted {
	t.Helper()
	w, err := stack.Want(f, publicKey)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// cli is the Pulumi CLI that `make tools` builds.
func cli(t *testing.T) string {
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

func setup(t *testing.T) (*hetznertest.API, stack.Options) {
	t.Helper()
	path := cli(t)
	api := hetznertest.New()
	t.Cleanup(api.Close)
	api.Change(func(a *hetznertest.API) { a.Polls = 1 })
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(api.Token), Endpoint: api.URL,
		Backoff: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return api, stack.Options{Dir: filepath.Join(t.TempDir(), "stack"), Fleet: "demo", Driver: d, CLI: path,
		Passphrase: inventory.SecretText("a passphrase of the vault")}
}

func up(t *testing.T, o stack.Options, w stack.Wanted) stack.Result {
	t.Helper()
	start := time.Now()
	res, err := stack.Up(t.Context(), o, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("up: %d changes in %.1f s", len(res.Changes), time.Since(start).Seconds())
	return res
}

func TestUpPreviewNoopDestroy(t *testing.T) {
	t.Setenv("HCLOUD_TOKEN", "test-token") // must not reach the CLI
	api, o := setup(t)
	w := want(t, fleet("fsn-1", "fsn-2", "fsn-3"))

	preview, err := stack.Preview(t.Context(), o, w)
	changes := preview.Changes
	if err != nil || len(changes) != 4+3*3 {
		t.Fatalf("preview: %d changes %v, %v", len(changes), changes, err)
	}
	if api.Created("servers") != 0 {
		t.Fatal("a preview created servers")
	}
	res := up(t, o, w)
	if len(res.Servers) != 3 || api.Created("servers") != 3 || len(res.Changes) != len(changes) {
		t.Fatalf("servers %v, changes %v", res.Servers, res.Changes)
	}
	again := up(t, o, w)
	if len(again.Changes) != 0 || again.Servers["fsn-2"] != res.Servers["fsn-2"] || !again.Servers["fsn-1"].Addr4.IsValid() {
		t.Errorf("second up: changes %v, servers %v", again.Changes, again.Servers)
	}
	if again, err := stack.Preview(t.Context(), o, w); err != nil || len(again.Changes) != 0 {
		t.Errorf("preview after up: %v %v", again.Changes, err)
	}
	searchFor(t, o.Dir, api.Token)

	if _, err := stack.Destroy(t.Context(), o, nil); !errors.Is(err, stack.ErrDeleteRefused) {
		t.Errorf("destroy without leave: %v", err)
	}
	if res, err := stack.Destroy(t.Context(), o, nil, "fsn-3"); err != nil || res.Err() != nil || api.Count("servers") != 2 {
		t.Errorf("destroy fsn-3: %v %v, %d servers left", err, res.Err(), api.Count("servers"))
	}
	o.AllowDelete = []string{"fsn-1", "fsn-2"}
	if res, err := stack.Destroy(t.Context(), o, nil); err != nil || res.Err() != nil {
		t.Errorf("destroy: %v %v", err, res.Err())
	}
	for _, c := range []string{"servers", "firewalls", "networks", "placement_groups", "ssh_keys"} {
		if n := api.Count(c); n != 0 {
			t.Errorf("%d %s left", n, c)
		}
	}
}

// searchFor fails when any file below dir holds the secret.
func searchFor(t *testing.T, dir, secret string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRemovedNodeIsNotDeletedUnasked(t *testing.T) {
	t.Parallel()
	api, o := setup(t)
	up(t, o, want(t, fleet("fsn-1", "fsn-2")))
	less := want(t, fleet("fsn-1"))
	if _, err := stack.Up(t.Context(), o, less, nil); !errors.Is(err, stack.ErrDeleteRefused) || !strings.Contains(err.Error(), "fleet down fsn-2") {
		t.Fatalf("error %v, want a refusal that names fleet down fsn-2", err)
	}
	preview, err := stack.Preview(t.Context(), o, less)
	if !errors.Is(err, stack.ErrDeleteRefused) || len(preview.Changes) != 3 {
		t.Errorf("preview: %v %v", preview.Changes, err)
	}
	o.AllowDelete = []string{"fsn-2"}
	up(t, o, less)
	if n := api.Count("servers"); n != 1 {
		t.Errorf("%d servers left", n)
	}
}

func TestDriftAndImmutable(t *testing.T) {
	t.Parallel()
	api, o := setup(t)
	f := fleet("fsn-1", "fsn-2")
	up(t, o, want(t, f))
	api.Edit(func(o map[string]map[int64]hetznertest.Object) {
		for id, s := range o["servers"] {
			if s["name"] == "demo-fsn-2" {
				delete(o["servers"], id) // somebody deleted it
			}
		}
		for _, fw := range o["firewalls"] {
			fw["rules"] = []any{} // and closed the firewall
		}
	})
	res := up(t, o, want(t, f))
	if api.Created("servers") != 3 || len(res.Servers) != 2 || !strings.Contains(changeList(res.Changes), "update Firewall firewall [rules]") {
		t.Errorf("changes %v, servers %v", res.Changes, res.Servers)
	}
	f.PoPs[0].Nodes[0].Machine.ServerType = "cx53"
	f.PoPs[0].Nodes = append(f.PoPs[0].Nodes, inventory.Node{Name: "fsn-3"})
	if _, err := stack.Preview(t.Context(), o, want(t, f)); !errors.Is(err, stack.ErrImmutable) {
		t.Errorf("preview of another type: %v", err)
	}
	res, err := stack.Up(t.Context(), o, want(t, f), nil)
	if err != nil || !errors.Is(res.Errors["fsn-1"], stack.ErrImmutable) || !strings.Contains(res.Err().Error(), "fleet down fsn-1") {
		t.Errorf("up with another type: %v %v", err, res.Err())
	}
	if !res.Servers["fsn-3"].Addr4.IsValid() || api.Created("servers") != 4 {
		t.Errorf("fsn-3 was held up: %v", res.Servers)
	}
}

func changeList(c stack.Changes) string {
	var lines []string
	for _, x := range c {
		lines = append(lines, x.String())
	}
	return strings.Join(lines, "\n")
}

func TestOneFailingServerDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	api, o := setup(t)
	hook := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/servers") {
			return false
		}
		b := new(bytes.Buffer)
		_, _ = b.ReadFrom(r.Body)
		r.Body = readCloser{b}
		if strings.Contains(b.String(), "demo-fsn-2") {
			hetznertest.Reply(w, http.StatusPreconditionFailed, "resource_unavailable")
			return true
		}
		return false
	}
	api.Change(func(a *hetznertest.API) { a.Before = hook })
	var mu sync.Mutex
	phases := map[string]string{}
	res, err := stack.Up(t.Context(), o, want(t, fleet("fsn-1", "fsn-2", "fsn-3")), func(e stack.Event) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(e.Key, "server.") {
			phases[e.Node] = e.Phase
		}
	})
	if err != nil || len(res.Servers) != 2 || !errors.Is(res.Errors["fsn-2"], provider.ErrUnavailable) || len(res.Errors) != 1 {
		t.Fatalf("%v; servers %v; errors %v", err, res.Servers, res.Errors)
	}
	mu.Lock()
	defer mu.Unlock()
	if phases["fsn-1"] != "done" || phases["fsn-2"] != "failed" {
		t.Errorf("phases %v", phases)
	}
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }
