package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// guarded is a world whose boots are proven and whose machine keys are exchanged.
func guarded(t testing.TB, o inprocess.Options) (*world, *scripted.Machine) {
	t.Helper()
	w := newWorld(t, o, 1)
	w.deps.Boots, w.deps.Rotation = w.vault, w.vault
	w.serving(t, w.up(t))
	return w, w.lab.Machine(t, "fsn-1")
}

// lock restarts the machine and waits until it is locked.
func (w *world) lock(t testing.TB, m *scripted.Machine) {
	t.Helper()
	must(t, m.Reset(t.Context()))
	w.until(t, "fsn-1", lifecycle.Locked)
}

func (w *world) unlockNow(t testing.TB, d lifecycle.Deps) lifecycle.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := lifecycle.Unlock(ctx, d, w.nodes[0])
	must(t, err)
	return r
}

func (w *world) rotation(t testing.TB) vault.Rotation {
	t.Helper()
	r, err := w.vault.MachineKey("fsn-1")
	must(t, err)
	return r
}

// burnt counts tries that the machine lost to keys that did not open it, and the keys that opened it.
func burnt(m *scripted.Machine) (wasted, opened int) {
	for _, u := range m.Ledger().Unlocks() {
		switch {
		case u.Outcome == "opened":
			opened++
		case u.Burnt:
			wasted++
		}
	}
	return wasted, opened
}

func TestTheKeyIsExchangedAfterEveryUnlock(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	if r := w.rotation(t); r.Generation != 0 || r.Phase != vault.RotationIdle {
		t.Errorf("before any unlock by it the machine key is of generation %d, %q", r.Generation, r.Phase)
	}
	for i := range 3 {
		before := w.rotation(t)
		w.lock(t, m)
		if r := w.unlockNow(t, w.deps); r.Err != nil {
			t.Fatalf("%v\n%s", r.Err, w.story("fsn-1"))
		}
		after := w.rotation(t)
		if after.Generation != i+1 || after.Phase != vault.RotationIdle || m.Slots()["machine"] != 1 || m.Slots()["recovery"] != 1 {
			t.Fatalf("generation %d, %q, slots %v\n%s", after.Generation, after.Phase, m.Slots(), w.story("fsn-1"))
		}
		if string(before.Current.Reveal()) == string(after.Current.Reveal()) {
			t.Fatal("the key is the same")
		}
	}
	if wasted, _ := burnt(m); wasted != 0 {
		t.Errorf("%d tries were wasted", wasted)
	}
	before := w.rotation(t)
	w.serving(t, w.up(t)) // nothing is due
	if w.rotation(t).Generation != before.Generation {
		t.Error("a key was exchanged without a boot")
	}
}

// dying is the vault's side of a rotation in a process that is killed at its k-th word with the vault: before the word
// is written, or right after.
type dying struct {
	lifecycle.Rotation
	at    int
	after bool
	words int
	kill  context.CancelFunc
}

func (d *dying) word(write func() (vault.Rotation, error)) (vault.Rotation, error) {
	d.words++
	if d.words == d.at && !d.after {
		d.kill()
		return vault.Rotation{}, errKilled
	}
	r, err := write()
	if d.words == d.at {
		d.kill()
		return vault.Rotation{}, errKilled
	}
	return r, err
}

func (d *dying) BeginRotation(n string) (vault.Rotation, error) {
	return d.word(func() (vault.Rotation, error) { return d.Rotation.BeginRotation(n) })
}

func (d *dying) CommitRotation(n string, g int) (vault.Rotation, error) {
	return d.word(func() (vault.Rotation, error) { return d.Rotation.CommitRotation(n, g) })
}

func (d *dying) EndRotation(n string, g int) (vault.Rotation, error) {
	return d.word(func() (vault.Rotation, error) { return d.Rotation.EndRotation(n, g) })
}

// TestARotationCutBetweenAnyTwoSteps kills the operator before and after each of its words with the vault, and the node
// before and after each of its acts, power-cycles the node right there, and opens it from a folder read anew: no key may
// be refused, and the rotation must end.
func TestARotationCutBetweenAnyTwoSteps(t *testing.T) {
	type cut struct {
		name string
		arm  func(w *world, d *lifecycle.Deps, kill context.CancelFunc)
	}
	var cuts []cut
	for word := 1; word <= 3; word++ {
		for _, after := range []bool{false, true} {
			cuts = append(cuts, cut{fmt.Sprintf("operator dies at word %d, written %v", word, after),
				func(w *world, d *lifecycle.Deps, kill context.CancelFunc) {
					d.Rotation = &dying{Rotation: w.vault, at: word, after: after, kill: kill}
				}})
		}
	}
	for _, step := range []string{"add", "added", "retire", "retired"} {
		cuts = append(cuts, cut{"node restarts at " + step, func(w *world, _ *lifecycle.Deps, _ context.CancelFunc) {
			w.lab.Faults.MustAdd(faults.Fault{Kind: faults.SpontaneousBoot, Step: step, Times: 1})
		}})
	}
	for _, c := range cuts {
		t.Run(c.name, func(t *testing.T) {
			w, m := guarded(t, inprocess.Options{})
			w.lock(t, m)
			ctx, kill := context.WithCancel(t.Context())
			defer kill()
			d := w.deps
			c.arm(w, &d, kill)
			boots := len(m.Ledger().Boots())
			r, err := lifecycle.Unlock(ctx, d, w.nodes[0])
			must(t, err)
			if strings.HasPrefix(c.name, "operator") && ctx.Err() == nil {
				t.Fatalf("nobody died: %v", r.Err)
			}
			waitUntil(t, func() bool { return ctx.Err() != nil || len(m.Ledger().Boots()) > boots })
			must(t, m.Reset(t.Context()))
			w.vault, err = vault.Open(w.vaultDir, inventory.SecretText(passphrase))
			must(t, err)
			w.deps = w.newDeps(t)
			w.deps.Boots, w.deps.Rotation = w.vault, w.vault
			w.until(t, "fsn-1", lifecycle.Locked)
			if r := w.unlockNow(t, w.deps); r.Err != nil {
				t.Fatalf("%v\n%s", r.Err, w.story("fsn-1"))
			}
			k := w.rotation(t)
			if k.Phase != vault.RotationIdle || k.Generation < 1 || m.Slots()["machine"] != 1 {
				t.Errorf("rotation %q, generation %d, slots %v\n%s", k.Phase, k.Generation, m.Slots(), w.story("fsn-1"))
			}
			w.lock(t, m)
			if r := w.unlockNow(t, w.deps); r.Err != nil {
				t.Errorf("the time after: %v", r.Err)
			}
			for _, u := range m.Ledger().Unlocks() {
				if u.Outcome != "opened" {
					t.Errorf("a key was refused: %+v", u)
				}
			}
		})
	}
	t.Logf("%d cuts", len(cuts))
}

// TestAnUpgradeThatFailsHalfWay leaves a record all the same, and one that was cut leaves a mark: the node is believed as
// long as it does not restart in between.
func TestAnUpgradeThatFailsHalfWay(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   faults.Fault
		restart bool
	}{
		{"its services are sick", faults.Fault{Kind: faults.ServiceSick, Times: 3}, true},
		{"the command is killed", faults.Fault{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, m := guarded(t, inprocess.Options{})
			ctx, kill := context.WithCancel(t.Context())
			defer kill()
			d := w.deps
			d.Compiler = &kernels{compiler{"first"}, "6.2"}
			if c.fault.Kind != "" {
				w.lab.Faults.MustAdd(c.fault)
			} else {
				d.Boots = &dyingBoots{Boots: w.vault, kill: kill, applies: m.Ledger().Applies}
			}
			r, err := lifecycle.Up(ctx, d, w.nodes)
			must(t, err)
			if r[0].Err == nil || errors.Is(r[0].Err, lifecycle.ErrSuspect) {
				t.Fatalf("the upgrade ended with %v", r[0].Err)
			}
			w.lab.Faults.Clear(0)
			if c.restart {
				w.lock(t, m)
				if r := w.unlockNow(t, w.deps); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			w.deps.Compiler = &kernels{compiler{"second"}, "6.2"}
			w.serving(t, w.up(t))
			w.lock(t, m)
			if r := w.unlockNow(t, w.deps); r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
}

// dyingBoots is a vault in a process that is killed when it is about to record what an upgrade changed.
type dyingBoots struct {
	lifecycle.Boots
	kill    context.CancelFunc
	applies func() int
}

func (d *dyingBoots) UpdateUnlock(node string, change func(*vault.UnlockState) error) (vault.UnlockState, error) {
	if d.applies() > 1 { // the first brought it up
		d.kill()
		return vault.UnlockState{}, errKilled
	}
	return d.Boots.UpdateUnlock(node, change)
}

// copyFolder is what another operator's checkout of the secrets is.
func copyFolder(t testing.TB, from string) *vault.Vault {
	t.Helper()
	to := filepath.Join(t.TempDir(), "secrets")
	must(t, os.CopyFS(to, os.DirFS(from)))
	must(t, filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	}))
	v, err := vault.Open(to, inventory.SecretText(passphrase))
	must(t, err)
	return v
}

// TestUnlockersThatKnowNothingOfEachOther: two controllers and a command, each in a folder of its own, no lease between
// them, all at once. The machine loses one try: the one that opens it.
func TestUnlockersThatKnowNothingOfEachOther(t *testing.T) {
	timing := quick
	timing.Unlock = 100 * time.Millisecond
	w, m := guarded(t, inprocess.Options{Timing: timing})
	const unlockers = 3
	var deps []lifecycle.Deps
	for range unlockers {
		v := copyFolder(t, w.vaultDir)
		d := w.newDeps(t)
		d.Keys, d.Memory, d.Boots, d.Lease = v, v, v, nil // keys stay: what is asked here is who opens
		deps = append(deps, d)
	}
	w.lock(t, m)
	_, before := burnt(m)
	var all sync.WaitGroup
	var failed atomic.Int32
	for _, d := range deps {
		all.Go(func() {
			r, err := lifecycle.Unlock(t.Context(), d, w.nodes[0])
			if err = errors.Join(err, r.Err); err != nil {
				failed.Add(1)
				t.Error(err)
			}
		})
	}
	all.Wait()
	wasted, opened := burnt(m)
	busy := 0
	for _, u := range m.Ledger().Unlocks() {
		if u.Outcome == "busy" {
			busy++
		}
	}
	t.Logf("%d keys opened, %d tries wasted, %d unlockers were told to wait, %d failed", opened-before, wasted, busy, failed.Load())
	if opened-before != 1 || wasted != 0 || busy == 0 {
		t.Error("one try should have been used, and somebody should have been told to wait")
	}
}

// TestAStaleFolderBurnsNoTry: another folder exchanged the key; this one's is refused before a try is used.
func TestAStaleFolderBurnsNoTry(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	stale := copyFolder(t, w.vaultDir)
	w.lock(t, m)
	if r := w.unlockNow(t, w.deps); r.Err != nil {
		t.Fatal(r.Err)
	}
	w.lock(t, m)
	d := w.newDeps(t)
	d.Keys, d.Memory, d.Boots, d.Rotation = stale, stale, stale, stale
	var failed *remote.UnlockError
	if r := w.unlockNow(t, d); !errors.As(r.Err, &failed) || failed.Outcome != remote.WrongKey || !strings.Contains(failed.Words, "no try was used") {
		t.Errorf("got %v", r.Err)
	}
	if wasted, _ := burnt(m); wasted != 0 {
		t.Errorf("%d tries were wasted", wasted)
	}
}

// TestWhoeverChangesWhatANodeBootsFrom is found out after the boot: the key is not exchanged, and the node is suspect
// until somebody trusts what it boots from now.
func TestWhoeverChangesWhatANodeBootsFrom(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	m.Tamper("boot/initrd.img-6.1", "one that sends the key elsewhere")
	w.lock(t, m)
	r := w.unlockNow(t, w.deps)
	if !errors.Is(r.Err, lifecycle.ErrSuspect) || !strings.Contains(r.Err.Error(), "boot/initrd.img-6.1 changed") {
		t.Fatalf("got %v", r.Err)
	}
	var told *lifecycle.Error
	if !errors.As(r.Err, &told) || !strings.Contains(told.Next, "fleet unlock --trust fsn-1") {
		t.Errorf("next: %+v", told)
	}
	if k := w.rotation(t); k.Generation != 0 {
		t.Error("a suspect node got another key")
	}
	s, err := w.vault.UnlockState("fsn-1")
	must(t, err)
	if s.Suspect == nil || s.Good == nil {
		t.Fatalf("state %+v", s)
	}
	if r := w.up(t)[0]; !errors.Is(r.Err, lifecycle.ErrSuspect) {
		t.Errorf("fleet up of a suspect node: %v", r.Err)
	}
	m.Tamper("boot/initrd.img-6.1", "") // changed back; the suspicion stays
	w.lock(t, m)
	if r := w.unlockNow(t, w.deps); !errors.Is(r.Err, lifecycle.ErrSuspect) {
		t.Errorf("after it was changed back: %v", r.Err)
	}
}

// kernels is a spec with a kernel package.
type kernels struct {
	compiler
	kernel string
}

func (k *kernels) Compile(ctx context.Context, node string) (spec.Node, remote.Blobs, error) {
	n, blobs, err := k.compiler.Compile(ctx, node)
	n.Packages = []string{"linux-image-" + k.kernel}
	return n, blobs, err
}

// TestAnUpgradeRecordsWhatItChanges, but not what somebody else changed before it.
func TestAnUpgradeRecordsWhatItChanges(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	w.deps.Compiler = &kernels{compiler{"first"}, "6.2"}
	w.serving(t, w.up(t))
	w.lock(t, m)
	if r := w.unlockNow(t, w.deps); r.Err != nil {
		t.Fatalf("after an upgrade of the kernel: %v", r.Err)
	}
	m.Tamper("boot/grub/grub.cfg", "another")
	w.deps.Compiler = &kernels{compiler{"first"}, "6.3"}
	if r := w.up(t)[0]; !errors.Is(r.Err, lifecycle.ErrSuspect) || !strings.Contains(r.Err.Error(), "while it ran") {
		t.Errorf("an upgrade of a node that was changed: %v", r.Err)
	}
	if r := m.Ledger().Applies(); r != 2 {
		t.Errorf("%d applies: the last one must not have been done", r)
	}
}

// TestCopiesOfAFolderFollowEachOther: the key is exchanged and the system upgraded from one copy of the folder; the
// other one learns both from the running node, and opens it the next time.
func TestCopiesOfAFolderFollowEachOther(t *testing.T) {
	w, m := guarded(t, inprocess.Options{})
	other := copyFolder(t, w.vaultDir)
	theirs := w.newDeps(t)
	theirs.Keys, theirs.Memory, theirs.Boots, theirs.Rotation = other, other, other, other
	for i := range 2 {
		w.deps.Compiler = &kernels{compiler{"first"}, fmt.Sprintf("6.%d", i+2)}
		w.serving(t, w.up(t))
		w.lock(t, m)
		if r := w.unlockNow(t, w.deps); r.Err != nil {
			t.Fatal(r.Err)
		}
		if r, err := lifecycle.Prove(t.Context(), theirs, w.nodes[0]); err != nil || r.Err != nil {
			t.Fatalf("the other copy does not follow: %v", errors.Join(err, r.Err))
		}
		w.lock(t, m)
		if r := w.unlockNow(t, theirs); r.Err != nil {
			t.Fatalf("the other copy can't open it: %v", r.Err)
		}
		if r, err := lifecycle.Prove(t.Context(), w.deps, w.nodes[0]); err != nil || r.Err != nil {
			t.Fatalf("the first copy does not follow: %v", errors.Join(err, r.Err))
		}
	}
	a, err := w.vault.MachineKey("fsn-1")
	must(t, err)
	b, err := other.MachineKey("fsn-1")
	must(t, err)
	if a.Generation != 4 || b.Generation != 4 || string(a.Current.Reveal()) != string(b.Current.Reveal()) || m.Slots()["machine"] != 1 {
		t.Errorf("generations %d and %d, slots %v", a.Generation, b.Generation, m.Slots())
	}
	m.Tamper("boot/initrd.img-6.1", "evil")
	w.lock(t, m)
	if r := w.unlockNow(t, theirs); !errors.Is(r.Err, lifecycle.ErrSuspect) {
		t.Errorf("a change nobody vouched for: %v", r.Err)
	}
	if wasted, _ := burnt(m); wasted != 0 {
		t.Errorf("%d tries were wasted", wasted)
	}
}

// TestTwoControllersThatShareNothing open a node again and again. Each has a copy of the folder; the tries that the
// machine loses are those that open it, one a boot.
func TestTwoControllersThatShareNothing(t *testing.T) {
	timing := quick
	timing.Unlock = 50 * time.Millisecond
	w, m := guarded(t, inprocess.Options{Timing: timing})
	second := &world{lab: w.lab, vault: copyFolder(t, w.vaultDir), driver: w.driver, nodes: w.nodes, agent: w.agent, deps: w.deps}
	controllers := []*ruled{withController(t, w), withController(t, second)}
	const boots = 5
	for range boots {
		before := len(m.Ledger().Boots())
		for _, c := range controllers {
			c.report(m.Ledger().Boots()[before-1].ID)
			c.inStep(t, m.Ledger().Boots()[before-1].ID)
		}
		must(t, m.Reset(t.Context()))
		waitUntil(t, func() bool { return len(m.Ledger().Boots()) == before+1 && m.Stage() == "system" })
	}
	wasted, opened := burnt(m)
	busy := 0
	for _, u := range m.Ledger().Unlocks() {
		if u.Outcome == "busy" || u.Outcome == "opened-before" {
			busy++
		}
	}
	t.Logf("%d boots, %d opened by a key, %d tries wasted, %d times an unlocker was sent away", boots, opened-1, wasted, busy)
	if wasted != 0 || opened-1 != boots {
		t.Error("expected one try a boot")
	}
}

// inStep waits until the controller's own folder has the key that opens the node after this boot.
func (r *ruled) inStep(t *testing.T, boot string) {
	t.Helper()
	waitUntil(t, func() bool {
		s, err := r.vault.UnlockState("fsn-1")
		must(t, err)
		if s.Suspect != nil {
			t.Fatalf("suspect: %s", s.Suspect.Why)
		}
		r.report(boot)
		return s.Good != nil && s.Good.BootID == boot && s.Good.Rotated == boot
	})
}

func waitUntil(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !is() {
		select {
		case <-deadline:
			t.Fatal("it never came to that")
		case <-tick.C:
		}
	}
}
