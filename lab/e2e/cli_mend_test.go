package e2e

import (
	"slices"
	"strings"
	"testing"

	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
)

// newMirroredWorld is a fleet with one cloud server and one dedicated machine with two disks, both up.
func newMirroredWorld(t *testing.T) (*cliWorld, *scripted.Machine) {
	t.Helper()
	w := newCLIWorld(t, inprocess.Options{Robot: 1})
	for _, line := range w.lab.Env() {
		name, value, _ := strings.Cut(line, "=")
		w.env[name] = value
	}
	id := w.lab.Robot.Servers()[0].ID
	w.edit(t, "      - name: fsn-2\n", "      - name: fsn-2\n        machine: {provider: hetznerrobot, server: \""+id+"\"}\n")
	w.want(t, 0, "up", "--yes", "--adopt", "fsn-2")
	return w, w.lab.Machine(t, id)
}

const diskBytes = 512 << 30

// A disk died and somebody put another in: one command has the node on two disks again, and everything that goes by
// serial knows the new one.
func TestCLIMend(t *testing.T) {
	t.Parallel()
	w, m := newMirroredWorld(t)
	old := m.Serials()
	if o := w.want(t, 0, "mend", "fsn-2", "--yes"); !strings.Contains(o.stdout, "runs on 2 of 2 disks: whole") || len(m.Ledger().Wipes()) != 2 {
		t.Errorf("nothing to mend: %s", o)
	}
	must(t, m.ReplaceDisk(1, "NEWDISK1", diskBytes))
	if o := w.want(t, 1, "mend", "fsn-2"); !strings.Contains(o.stdout, "runs on 1 of 2 disks: degraded") || !strings.Contains(o.stderr, "nothing was done") || m.Ledger().Wipes()["NEWDISK1"] != 0 {
		t.Errorf("without a word from a person: %s", o)
	}
	o := w.want(t, 0, "mend", "fsn-2", "--yes")
	for _, says := range []string{"disk NEWDISK1", "add it to the mirrors", "its mirrors are whole", "✓ fsn-2 would come back"} {
		if !strings.Contains(o.stdout, says) {
			t.Errorf("%q is not said: %s", says, o)
		}
	}
	if n := m.Ledger().Wipes()["NEWDISK1"]; n != 1 {
		t.Errorf("the new disk was written %d times", n)
	}
	state, err := w.openVault(t).NodeState("fsn-2")
	must(t, err)
	if want := []string{old[0], "NEWDISK1"}; !slices.Equal(sorted(state.DiskSerials), sorted(want)) {
		t.Errorf("the vault knows %v, not %v", state.DiskSerials, want)
	}
	w.want(t, 0, "mend", "fsn-2", "--yes")
	w.want(t, 0, "plan")

	w.lab.Faults.MustAdd(faults.Fault{Kind: faults.DiskMissing, Machine: w.lab.Robot.Servers()[0].ID, Disk: 0, Times: 1})
	must(t, m.Reset(t.Context()))
	w.untilStage(t, m, "locked")
	w.want(t, 0, "up", "--yes")
	must(t, m.Reset(t.Context()))
	w.untilStage(t, m, "locked")
	w.want(t, 0, "up", "--yes")
	w.want(t, 0, "down", "fsn-2", "--yes")
	if got := m.Ledger().KeysWiped(); !slices.Equal(sorted(got), sorted(state.DiskSerials)) {
		t.Errorf("key slots destroyed on %v, the node is on %v", got, state.DiskSerials)
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// What is not blank is taken only when it is named and its serial is typed.
func TestCLIMendRefuses(t *testing.T) {
	t.Parallel()
	w, m := newMirroredWorld(t)
	if o := w.run(t, "mend", "fsn-1", "--yes"); o.code == 0 || !strings.Contains(o.stderr, "has 0 of the mirrors") {
		t.Errorf("a node with one disk: %s", o)
	}
	w.want(t, 1, "mend", "nobody-1", "--yes")
	must(t, m.ReplaceDisk(1, "USED1", diskBytes))
	m.PlantForeign(1, "linux: ext4 somebody's")
	if o := w.run(t, "mend", "fsn-2", "--yes"); o.code == 0 || !strings.Contains(o.stderr, "--disk") {
		t.Errorf("a disk with data: %s", o)
	}
	if o := w.run(t, "mend", "fsn-2", "--yes", "--disk", "USED1"); o.code == 0 || !strings.Contains(o.stdout, "ERASE") || !strings.Contains(o.stderr, "nothing was done") {
		t.Errorf("named, and nobody typed its serial: %s", o)
	}
	if o := w.run(t, "mend", "fsn-2", "--yes", "--disk", "NOBODYS"); o.code == 0 {
		t.Errorf("a disk that is not there: %s", o)
	}
	must(t, m.ReplaceDisk(1, "SMALL1", 1<<30))
	if o := w.run(t, "mend", "fsn-2", "--yes"); o.code == 0 || !strings.Contains(o.stderr, "too small") {
		t.Errorf("a disk that is too small: %s", o)
	}
	for serial, n := range m.Ledger().Wipes() {
		if serial == "USED1" || serial == "SMALL1" || n != 1 {
			t.Errorf("disk %s was written %d times", serial, n)
		}
	}
}

// A call that dies in the middle, or whose answer is lost, is gone on with by the same again; the disk is written once.
func TestCLIMendCut(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]faults.Kind{"before": faults.OpCut, "answer lost": faults.OpLost, "told": faults.OpFails} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, m := newMirroredWorld(t)
			must(t, m.ReplaceDisk(0, "NEWDISK0", diskBytes))
			w.lab.Faults.MustAdd(faults.Fault{Kind: kind, Machine: w.lab.Robot.Servers()[0].ID, Step: "mend", Times: 1})
			if o := w.run(t, "mend", "fsn-2", "--yes"); o.code == 0 || !strings.Contains(o.stderr, "mend fsn-2` goes on") {
				t.Errorf("cut: %s", o)
			}
			w.want(t, 0, "mend", "fsn-2", "--yes")
			state, err := w.openVault(t).NodeState("fsn-2")
			must(t, err)
			if n := m.Ledger().Wipes()["NEWDISK0"]; n != 1 || !slices.Contains(state.DiskSerials, "NEWDISK0") || len(state.DiskSerials) != 2 {
				t.Errorf("written %d times, the vault knows %v", n, state.DiskSerials)
			}
			w.want(t, 0, "plan")
		})
	}
}
