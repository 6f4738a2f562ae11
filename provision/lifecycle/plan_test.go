package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
)

var update = flag.Bool("update", false, "rewrite golden files")

func want() Want {
	return Want{
		Node: Node{Name: "fsn-1", Machine: inventory.Machine{ServerType: "cx23", Location: "fsn1",
			Disks: inventory.Disks{Serials: []string{"S1"}}}},
		Image: "0123456789abcdef", Converge: true, Serve: true, Pace: pace.Real,
	}
}

// scenes are one observation for each way a node can be found.
func scenes() []struct {
	name string
	seen Observation
} {
	state := func(o Observation, s vault.NodeState) Observation {
		o.state, o.Installed = s, installed(s)
		o.Pending = s.InstallRun != "" && !o.Installed
		return o
	}
	begun := vault.NodeState{InstallRun: "run1"}
	done := vault.NodeState{InstallRun: "run1", SystemHostKey: "k", InitramfsHostKey: "k"}
	sealed := vault.NodeState{InstallRun: "run1", SystemHostKey: "k", InitramfsHostKey: "k", Sealed: true}
	return []struct {
		name string
		seen Observation
	}{
		{"absent", Observation{Stage: Absent}},
		{"rented, never installed", Observation{Stage: Rented}},
		{"rented, installation cut short", state(Observation{Stage: Rented}, begun)},
		{"rescue, never installed", Observation{Stage: Rescue}},
		{"rescue, installation in progress", state(Observation{Stage: Rescue}, begun)},
		{"rescue, installed", state(Observation{Stage: Rescue}, done)},
		{"switched off, sealed", state(Observation{Stage: Rented}, sealed)},
		{"silent, sealed", state(Observation{Stage: Silent}, sealed)},
		{"silent after unlock", state(Observation{Stage: Silent, after: OpUnlock}, done)},
		{"locked, not sealed", state(Observation{Stage: Locked}, done)},
		{"locked, sealed", state(Observation{Stage: Locked}, sealed)},
		{"booted, not sealed", state(Observation{Stage: Booted}, done)},
		{"sealed, differs", state(Observation{Stage: Sealed, Asked: true, Changes: []string{"file /etc/fleet/dns.json", "unit fleet-dns.service"}}, sealed)},
		{"sealed, one change", state(Observation{Stage: Sealed, Asked: true, Changes: []string{"file /etc/fleet/dns.json"}}, sealed)},
		{"converged, not serving", state(Observation{Stage: Converged, Asked: true}, sealed)},
		{"serving", state(Observation{Stage: Serving, Asked: true}, sealed)},
		{"quarantined", state(Observation{Stage: Quarantined}, sealed)},
		{"unknown", Observation{Stage: Unknown}},
	}
}

func TestPlans(t *testing.T) {
	var b strings.Builder
	for _, s := range scenes() {
		fmt.Fprintf(&b, "# %s\n", s.name)
		for _, op := range Plan(want(), s.seen) {
			erases := ""
			if op.Erases {
				erases = " [erases]"
			}
			fmt.Fprintf(&b, "%s%s (at most %s)\n", op.Describe(), erases, op.Deadline)
		}
		b.WriteString("\n")
	}
	const golden = "testdata/plans.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(data), b.String()); diff != "" {
		t.Errorf("plans changed (go test -update writes them anew):\n%s", diff)
	}
}

// An operation that a plan begins with is never already done, and one that destroys is planned only where nothing of
// ours can be destroyed.
func TestPlansAreNeededAndSafe(t *testing.T) {
	for _, s := range scenes() {
		plan := Plan(want(), s.seen)
		for i, op := range plan {
			if i == 0 && op.Done(s.seen) {
				t.Errorf("%s: %s is planned although it is done", s.name, op.Op)
			}
			if op.Erases && s.seen.Installed {
				t.Errorf("%s: %s is planned for a node that is installed", s.name, op.Op)
			}
		}
		if len(plan) > 0 && (s.seen.Stage == Serving || s.seen.Stage == Quarantined || s.seen.Stage == Unknown) {
			t.Errorf("%s: something is planned: %s", s.name, plan[0].Describe())
		}
	}
}

func TestAStateIsAboutOneServer(t *testing.T) {
	s := vault.NodeState{ServerID: "1", InstallRun: "r", SystemHostKey: "k", InitramfsHostKey: "k", Sealed: true}
	if got := aboutServer(s, "2"); got.InstallRun != "" || got.Sealed || got.ServerID != "2" {
		t.Errorf("another server inherits %+v", got)
	}
	if got := aboutServer(s, "1"); !installed(got) {
		t.Errorf("the same server forgets %+v", got)
	}
}
