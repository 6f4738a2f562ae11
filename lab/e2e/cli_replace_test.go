package e2e

import (
	"fmt"
	"strings"
	"testing"

	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
)

// living is the machine that stands behind a node now; gone are those that were given up, in the order of their birth.
func (w *cliWorld) living(t *testing.T, label string) (now *scripted.Machine, gone []*scripted.Machine) {
	t.Helper()
	now = w.lab.Machine(t, label)
	for _, m := range w.lab.Machines.Machines() {
		if m.Label() == label && m != now {
			gone = append(gone, m)
		}
	}
	return now, gone
}

// Replace: the old disk opens for nobody, the node is back on another server with other keys, the others are untouched.
func TestCLIReplace(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	w.want(t, 0, "up", "--yes")
	v := w.openVault(t)
	before, err := v.NodeState("fsn-2")
	must(t, err)
	other := w.lab.Machine(t, "demo-fsn-1")
	boots := len(other.Ledger().Boots())

	if o := w.want(t, 1, "replace", "fsn-2"); !strings.Contains(o.stderr, "nothing was done") {
		t.Errorf("replace without --yes: %s", o)
	}
	w.want(t, 0, "replace", "fsn-2", "--yes")
	now, gone := w.living(t, "demo-fsn-2")
	if len(gone) != 1 || now.Stage() != "system" {
		t.Fatalf("%d machines given up, the new one is %s", len(gone), now.Stage())
	}
	if got, want := fmt.Sprint(gone[0].Ledger().KeysWiped()), fmt.Sprint(gone[0].Serials()); got != want {
		t.Errorf("key slots of the old server destroyed on %s, wanted %s", got, want)
	}
	after, err := w.openVault(t).NodeState("fsn-2")
	must(t, err)
	if after.ServerID == before.ServerID || after.SystemHostKey == before.SystemHostKey || after.InitramfsHostKey == before.InitramfsHostKey {
		t.Errorf("same server or same keys: %s %s", before.ServerID, after.ServerID)
	}
	if n := len(other.Ledger().Boots()); n != boots {
		t.Errorf("fsn-1 was restarted %d times", n-boots)
	}
	w.want(t, 0, "plan")
}

// A dead server answers nothing: its keys are forgotten, and the node comes back all the same.
func TestCLIReplaceDead(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	w.want(t, 0, "up", "--yes")
	dead := w.lab.Machine(t, "demo-fsn-2")
	w.lab.Faults.MustAdd(faults.Fault{Kind: faults.BootHangs, Machine: "demo-fsn-2", Times: 2})
	must(t, dead.Reset(t.Context()))
	w.untilStage(t, dead, "dead")
	w.want(t, 0, "replace", "fsn-2", "--dead", "--yes")
	now, gone := w.living(t, "demo-fsn-2")
	if len(gone) != 1 || gone[0] != dead || now.Stage() != "system" {
		t.Errorf("%d machines given up, the new one is %s", len(gone), now.Stage())
	}
	w.want(t, 0, "plan")
}

// Quarantine: nothing of ours touches the node, its key is never handed out, and it can still be given up.
func TestCLIQuarantine(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	w.want(t, 0, "up", "--yes")
	m := w.lab.Machine(t, "demo-fsn-2")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"quarantine", "fsn-2"}, "--why is missing"},
		{[]string{"quarantine", "fsn-9", "--why", "x"}, `no node "fsn-9"`},
		{[]string{"quarantine", "fsn-2", "--lift"}, "is not in quarantine"},
	} {
		if o := w.want(t, 1, c.args...); !strings.Contains(o.stderr, c.says) {
			t.Errorf("%v: %s", c.args, o)
		}
	}
	w.want(t, 0, "quarantine", "fsn-2", "--why", "odd traffic at night")

	must(t, m.Reset(t.Context()))
	w.untilStage(t, m, "locked")
	logins, unlocks := fmt.Sprint(m.Ledger().Logins()), len(m.Ledger().Unlocks())
	if o := w.run(t, "unlock", "fsn-2"); o.code == 0 || !strings.Contains(o.stderr, "odd traffic at night") {
		t.Errorf("unlock of a node in quarantine: %s", o)
	}
	if o := w.want(t, 3, "up", "--yes"); !strings.Contains(o.stdout+o.stderr, "odd traffic at night") {
		t.Errorf("up: %s", o)
	}
	if got := fmt.Sprint(m.Ledger().Logins()); got != logins || len(m.Ledger().Unlocks()) != unlocks {
		t.Errorf("it was logged in to: %s, then %s, %d keys sent", logins, got, len(m.Ledger().Unlocks())-unlocks)
	}
	w.want(t, 0, "quarantine", "fsn-2", "--lift")
	w.want(t, 0, "up", "--yes")
	w.want(t, 0, "quarantine", "fsn-2", "--why", "once more")
	w.want(t, 0, "down", "fsn-2", "--yes")
	if got, want := fmt.Sprint(m.Ledger().KeysWiped()), fmt.Sprint(m.Serials()); got != want {
		t.Errorf("key slots destroyed on %s, wanted %s", got, want)
	}
}
