package e2e

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/provision/lifecycle"
)

// upgraded is a package run on the node that brings a kernel.
func upgraded(t testing.TB, m *scripted.Machine, version string) {
	t.Helper()
	must(t, m.BeginPackageRun())
	m.Tamper("boot/vmlinuz-"+version, "kernel "+version)
	m.EndPackageRun("linux-image-amd64 " + version)
}

func (w *world) good(t testing.TB) *vault.GoodBoot {
	t.Helper()
	s, err := w.vault.UnlockState("fsn-1")
	must(t, err)
	if s.Suspect != nil {
		t.Fatalf("suspect: %s", s.Suspect.Why)
	}
	return s.Good
}

// heardAudits is what was audited.
type heardAudits struct {
	sync.Mutex
	all []string
}

func (h *heardAudits) hear(_ context.Context, _, verdict, why string, _ any) {
	h.Lock()
	defer h.Unlock()
	h.all = append(h.all, verdict+": "+why)
}

func (h *heardAudits) count(verdict string) (n int) {
	h.Lock()
	defer h.Unlock()
	for _, line := range h.all {
		if strings.HasPrefix(line, verdict+": ") {
			n++
		}
	}
	return n
}

// TestAPackageRunIsNoStrangersHand: a kernel that the node's package manager brought is recorded before the reboot, by
// whoever looks at the running node, once.
func TestAPackageRunIsNoStrangersHand(t *testing.T) {
	for name, look := range map[string]func(w *world) error{
		"fleet unlock": func(w *world) error { return w.unlockNow(t, w.deps).Err },
		"a proof": func(w *world) error {
			r, err := lifecycle.Prove(t.Context(), w.deps, w.nodes[0])
			return errors.Join(err, r.Err)
		},
		"fleet up": func(w *world) error { return w.up(t)[0].Err },
	} {
		t.Run(name, func(t *testing.T) {
			w, m := guarded(t, inprocess.Options{})
			var heard heardAudits
			w.deps.Audit = heard.hear
			for i, version := range []string{"6.2", "6.3"} {
				before := w.good(t)
				upgraded(t, m, version)
				for range 2 {
					must(t, look(w))
				}
				if after := w.good(t); after.Manifest == before.Manifest || after.BootID != before.BootID || after.Rotated != before.Rotated || after.Files["boot/vmlinuz-"+version] == "" {
					t.Errorf("recorded: %+v", after)
				}
				if n := heard.count(lifecycle.VerdictRenewed); n != i+1 || !strings.Contains(strings.Join(heard.all, "\n"),
					"renewed: boot/vmlinuz-"+version+" is new: package run of linux-image-amd64 "+version) {
					t.Errorf("audited: %q", heard.all)
				}
				w.lock(t, m)
				if r := w.unlockNow(t, w.deps); r.Err != nil {
					t.Fatalf("after the reboot: %v\n%s", r.Err, w.story("fsn-1"))
				}
			}
			if k := w.rotation(t); k.Generation != 2 {
				t.Errorf("machine key %d", k.Generation)
			}
		})
	}
}

// TestWhatNoPackageRunMade stays as it was: the node gets another key only after a person has looked.
func TestWhatNoPackageRunMade(t *testing.T) {
	evil := func(m *scripted.Machine) { m.Tamper("boot/initrd.img-6.1", "evil") }
	for name, change := range map[string]func(t *testing.T, w *world, m *scripted.Machine){
		"before the run": func(t *testing.T, _ *world, m *scripted.Machine) { evil(m); upgraded(t, m, "6.2") },
		"after the run":  func(t *testing.T, _ *world, m *scripted.Machine) { upgraded(t, m, "6.2"); evil(m) },
		"between two runs": func(t *testing.T, _ *world, m *scripted.Machine) {
			upgraded(t, m, "6.2")
			evil(m)
			upgraded(t, m, "6.3")
		},
		"after it was recorded": func(t *testing.T, w *world, m *scripted.Machine) {
			upgraded(t, m, "6.2")
			must(t, w.unlockNow(t, w.deps).Err)
			evil(m)
		},
		"without a run": func(_ *testing.T, _ *world, m *scripted.Machine) { evil(m) },
		"a run that was killed": func(t *testing.T, _ *world, m *scripted.Machine) {
			must(t, m.BeginPackageRun())
			m.Tamper("boot/vmlinuz-6.2", "kernel 6.2")
			m.EndPackageRun()
		},
		"a run after one that was killed": func(t *testing.T, _ *world, m *scripted.Machine) {
			must(t, m.BeginPackageRun())
			m.Tamper("boot/vmlinuz-6.2", "kernel 6.2")
			m.EndPackageRun()
			upgraded(t, m, "6.3")
		},
		"the word of an earlier boot": func(t *testing.T, w *world, m *scripted.Machine) {
			upgraded(t, m, "6.2")
			m.Tamper("boot/vmlinuz-6.2", "") // taken back before anybody looked
			m.CarryDeclarations(false)
			w.lock(t, m)
			must(t, w.unlockNow(t, w.deps).Err)
			m.Tamper("boot/vmlinuz-6.2", "kernel 6.2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, m := guarded(t, inprocess.Options{})
			change(t, w, m)
			before := w.rotation(t).Generation
			recorded := w.good(t).Manifest
			for range 2 {
				if r := w.unlockNow(t, w.deps); r.Err != nil {
					t.Errorf("a look at the running node: %v", r.Err)
				}
			}
			if now := w.good(t).Manifest; now != recorded {
				t.Error("it was recorded")
			}
			w.lock(t, m)
			if r := w.unlockNow(t, w.deps); !errors.Is(r.Err, lifecycle.ErrSuspect) || w.rotation(t).Generation != before {
				t.Errorf("after the reboot: %v, machine key %d", r.Err, w.rotation(t).Generation)
			}
		})
	}
}

// TestAWordThatComesTooLate: the node restarted before anybody looked. What it says then may come from whoever changed its
// initramfs.
func TestAWordThatComesTooLate(t *testing.T) {
	for name, carry := range map[string]func(m *scripted.Machine){
		"it is gone":         func(*scripted.Machine) {},
		"of the old boot":    func(m *scripted.Machine) { m.CarryDeclarations(false) },
		"forged for the new": func(m *scripted.Machine) { m.CarryDeclarations(true) },
	} {
		t.Run(name, func(t *testing.T) {
			w, m := guarded(t, inprocess.Options{})
			upgraded(t, m, "6.2")
			carry(m)
			w.lock(t, m)
			if r := w.unlockNow(t, w.deps); !errors.Is(r.Err, lifecycle.ErrSuspect) {
				t.Errorf("got %v", r.Err)
			}
		})
	}
}

// TestALookDuringAPackageRun judges nothing, and an upgrade waits for its end rather than calling the node suspect.
func TestALookDuringAPackageRun(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	upgraded(t, m, "6.2")
	must(t, m.BeginPackageRun())
	m.Tamper("boot/vmlinuz-6.3", "half of ")
	before := w.good(t)
	must(t, w.unlockNow(t, w.deps).Err)
	if now := w.good(t); now.Manifest != before.Manifest || now.Declared != "" {
		t.Errorf("judged during the run: %+v", now)
	}
	w.deps.Compiler = &compiler{"second"}
	if r := w.up(t)[0]; !errors.Is(r.Err, lifecycle.ErrPackageRun) {
		t.Errorf("an upgrade during the run: %v", r.Err)
	}
	m.Tamper("boot/vmlinuz-6.3", "kernel 6.3")
	m.EndPackageRun("linux-image-amd64 6.3")
	w.serving(t, w.up(t))
	w.lock(t, m)
	if r := w.unlockNow(t, w.deps); r.Err != nil {
		t.Error(r.Err)
	}
}

// TestCopiesHearOfAPackageRun: one copy of the folder records it, the other one opens the node after its reboot.
func TestCopiesHearOfAPackageRun(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	other := copyFolder(t, w.vaultDir)
	theirs := w.newDeps(t)
	theirs.Keys, theirs.Memory, theirs.Boots, theirs.Rotation = other, other, other, other
	upgraded(t, m, "6.2")
	must(t, w.unlockNow(t, w.deps).Err)
	w.lock(t, m)
	if r := w.unlockNow(t, theirs); r.Err != nil {
		t.Fatalf("the other copy: %v", r.Err)
	}
	upgraded(t, m, "6.3")
	var both sync.WaitGroup
	for _, d := range []lifecycle.Deps{w.deps, theirs} {
		both.Go(func() {
			if r := w.unlockNow(t, d); r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
	both.Wait()
	for _, d := range [][2]lifecycle.Deps{{w.deps, theirs}, {theirs, w.deps}} {
		w.lock(t, m)
		if r := w.unlockNow(t, d[0]); r.Err != nil {
			t.Error(r.Err)
		}
		if r, err := lifecycle.Prove(t.Context(), d[1], w.nodes[0]); err != nil || r.Err != nil {
			t.Error(errors.Join(err, r.Err))
		}
	}
	if wasted, _ := burnt(m); wasted != 0 {
		t.Errorf("%d tries were wasted", wasted)
	}
}

// TestTheControllerHearsOfAPackageRun from the node's report, and records it without a person.
func TestTheControllerHearsOfAPackageRun(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	r := withController(t, w)
	boot := func() string { all := m.Ledger().Boots(); return all[len(all)-1].ID }
	r.report(boot())
	before := w.good(t).Manifest
	upgraded(t, m, "6.2")
	waitUntil(t, func() bool {
		r.changed = m.Declared()
		r.report(boot())
		return w.good(t).Manifest != before
	})
	old := boot()
	must(t, m.Reset(t.Context()))
	waitUntil(t, func() bool { return boot() != old && m.Stage() == "system" })
	r.changed = ""
	r.inStep(t, boot())
}

// refusing is a vault that begins no rotation.
type refusing struct{ lifecycle.Rotation }

func (refusing) BeginRotation(string) (vault.Rotation, error) { return vault.Rotation{}, errKilled }

// TestAWordBetweenBootsIsNoExchange: the key of this boot could not be exchanged, then a package run was recorded and other
// copies were told. The next look must not take that for another copy's exchange.
func TestAWordBetweenBootsIsNoExchange(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	w.lock(t, m)
	d := w.deps
	d.Rotation = refusing{w.vault}
	must(t, w.unlockNow(t, d).Err)
	recorded := w.good(t)
	upgraded(t, m, "6.2")
	must(t, w.unlockNow(t, d).Err)
	if now := w.good(t); now.Manifest == recorded.Manifest || now.Rotated == now.BootID {
		t.Fatalf("recorded: %+v", now)
	}
	must(t, w.unlockNow(t, w.deps).Err)
	if k := w.rotation(t); k.Generation != 1 || w.good(t).Rotated != recorded.BootID {
		t.Errorf("machine key %d", k.Generation)
	}
}

// TestAnUpgradeMeetsAPackageRun: the node was looked at, then its package manager changed it, then the upgrade begins.
func TestAnUpgradeMeetsAPackageRun(t *testing.T) {
	for name, c := range map[string]struct {
		meet    func(t *testing.T, m *scripted.Machine)
		suspect bool
	}{
		"declared": {func(t *testing.T, m *scripted.Machine) { upgraded(t, m, "6.2") }, false},
		"killed":   {func(_ *testing.T, m *scripted.Machine) { m.Tamper("boot/vmlinuz-6.2", "kernel 6.2") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, m := guarded(t, inprocess.Options{})
			w.deps.Compiler = &compiler{"second"}
			w.deps.Journal = &onBegin{memoryJournal: &memoryJournal{}, op: string(lifecycle.OpConverge), do: func() { c.meet(t, m) }}
			r := w.up(t)[0]
			if errors.Is(r.Err, lifecycle.ErrSuspect) != c.suspect || (r.Err != nil) != c.suspect {
				t.Fatalf("the upgrade: %v", r.Err)
			}
			w.lock(t, m)
			if r := w.unlockNow(t, w.deps); (r.Err != nil) != c.suspect {
				t.Errorf("after the reboot: %v", r.Err)
			}
		})
	}
}

// TestAnUpgradeAndTheWordOfAnEarlierBoot: the state is what was declared, in the boot before.
func TestAnUpgradeAndTheWordOfAnEarlierBoot(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	upgraded(t, m, "6.2")
	m.Tamper("boot/vmlinuz-6.2", "") // taken back before anybody looked
	m.CarryDeclarations(false)
	w.lock(t, m)
	must(t, w.unlockNow(t, w.deps).Err)
	m.Tamper("boot/vmlinuz-6.2", "kernel 6.2")
	w.deps.Compiler = &compiler{"second"}
	if r := w.up(t)[0]; !errors.Is(r.Err, lifecycle.ErrSuspect) {
		t.Errorf("got %v", r.Err)
	}
}
