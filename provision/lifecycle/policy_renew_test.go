package lifecycle

import (
	"errors"
	"strings"
	"testing"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
)

// TestDeclaredPackageRuns: the whole chain, from what was recorded to what is there, in the boot that was proven.
func TestDeclaredPackageRuns(t *testing.T) {
	state := func(digest string) spec.BootManifest {
		return manifestOf(digest, map[string]string{"boot/vmlinuz": digest, "disk A/mbr": "m", "disk B/mbr": "m"})
	}
	run := func(from, to string) spec.BootChange {
		return spec.BootChange{From: state(from), To: to, Packages: []string{"linux-image-" + to + " 1"}}
	}
	good := &vault.GoodBoot{BootID: "b1", Manifest: "s0", Files: byPath(state("s0"))}
	oneDisk := run("s0", "s1")
	oneDisk.From = manifestOf("s0 of one disk", map[string]string{"boot/vmlinuz": "s0", "disk A/mbr": "m"})
	evilDisk := run("s0", "s1")
	evilDisk.From = manifestOf("s0 of one disk", map[string]string{"boot/vmlinuz": "s0", "disk A/mbr": "evil"})
	for name, c := range map[string]struct {
		boot, said string
		runs       []spec.BootChange
		now        string
		want       int    // how many of the runs count; 0: none is believed
		why        string // of those that are not
	}{
		"one run":                      {"b1", "b1", []spec.BootChange{run("s0", "s1")}, "s1", 1, ""},
		"two runs":                     {"b1", "b1", []spec.BootChange{run("s0", "s1"), run("s1", "s2")}, "s2", 2, ""},
		"the first is recorded":        {"b1", "b1", []spec.BootChange{run("x", "s0"), run("s0", "s1")}, "s1", 1, ""},
		"back to the start":            {"b1", "b1", []spec.BootChange{run("s0", "s1"), run("s1", "s0"), run("s0", "s2")}, "s2", 1, ""},
		"a disk of the mirror is gone": {"b1", "b1", []spec.BootChange{oneDisk}, "s1", 1, ""},
		"and the other was changed":    {"b1", "b1", []spec.BootChange{evilDisk}, "s1", 0, "disk A/mbr changed"},
		"from another state":           {"b1", "b1", []spec.BootChange{run("x", "s1")}, "s1", 0, "before linux-image-s1 1: boot/vmlinuz changed"},
		"a gap":                        {"b1", "b1", []spec.BootChange{run("s0", "s1"), run("x", "s2")}, "s2", 0, "between two of them"},
		"it changed again":             {"b1", "b1", []spec.BootChange{run("s0", "s1")}, "s2", 0, "again after the last"},
		"another boot says so":         {"b1", "b0", []spec.BootChange{run("s0", "s1")}, "s1", 0, "declared for boot b0"},
		"in a boot that nobody proved": {"b2", "b2", []spec.BootChange{run("s0", "s1")}, "s1", 0, "proven is b1"},
		"nothing":                      {"b1", "b1", nil, "s1", 0, "none is declared"},
	} {
		now := state(c.now)
		runs, err := declared(good, c.boot, spec.BootChanges{BootID: c.said, Changes: c.runs, Manifest: &now})
		switch {
		case len(runs) != c.want || (err == nil) != (c.want > 0):
			t.Errorf("%s: %d runs, %v", name, len(runs), err)
		case err != nil && (!errors.Is(err, errUndeclared) || !strings.Contains(err.Error(), c.why)):
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := declared(good, "b1", spec.BootChanges{BootID: "b1", Changes: []spec.BootChange{run("s0", "s1")}}); !errors.Is(err, errUndeclared) {
		t.Errorf("nobody said what it boots from now: %v", err)
	}
}

func TestAJudgedDeclarationIsNotDue(t *testing.T) {
	seen := Observation{Facts: &spec.Facts{BootID: "b1", BootChanged: "s1"}}
	suspect := vault.UnlockState{Good: &vault.GoodBoot{BootID: "b1"}, Suspect: &vault.Suspicion{}}
	for name, c := range map[string]struct {
		known vault.UnlockState
		due   bool
	}{
		"new":                  {vault.UnlockState{Good: &vault.GoodBoot{BootID: "b1", Manifest: "s0"}}, true},
		"recorded":             {vault.UnlockState{Good: &vault.GoodBoot{BootID: "b1", Manifest: "s1"}}, false},
		"judged":               {vault.UnlockState{Good: &vault.GoodBoot{BootID: "b1", Declared: "s1"}}, false},
		"of a boot not proven": {vault.UnlockState{Good: &vault.GoodBoot{BootID: "b0"}}, false},
		"nothing recorded":     {vault.UnlockState{}, false},
		"suspect":              {suspect, false},
	} {
		if renewalDue(c.known, seen) != c.due {
			t.Errorf("%s: due %v", name, !c.due)
		}
	}
	if renewalDue(vault.UnlockState{Good: &vault.GoodBoot{BootID: "b1"}}, Observation{Facts: &spec.Facts{BootID: "b1"}}) {
		t.Error("nothing was declared")
	}
}
