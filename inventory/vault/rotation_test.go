package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestARotationKeepsAKeyThatOpens plays a machine beside the vault and cuts the rotation at every point: the current key
// of a vault opened anew must open the machine, and going on must end it.
func TestARotationKeepsAKeyThatOpens(t *testing.T) {
	const points = 5 // begin, add, commit, retire, end
	for cut := range points + 1 {
		v := newTestVault(t)
		first := machineKey(t, v)
		slots := map[string]bool{first: true}
		done := 0
		step := func(f func()) bool {
			if done == cut {
				return false
			}
			done++
			f()
			return true
		}
		turn(t, v, slots, step)
		again := reopen(t, v)
		if key := machineKey(t, again); !slots[key] {
			t.Fatalf("cut after %d steps: the vault's current key opens nothing", done)
		}
		turn(t, again, slots, func(f func()) bool { f(); return true })
		r, err := again.MachineKey("fsn-1")
		if err != nil || r.Phase != RotationIdle || len(slots) != 1 || !slots[string(r.Current.Reveal())] {
			t.Fatalf("cut after %d steps, then gone on: phase %q, %d slots, %v", done, r.Phase, len(slots), err)
		}
		if string(r.Current.Reveal()) == first {
			t.Errorf("cut after %d steps: the key was not rotated", done)
		}
	}
}

// turn does what a rotation does to vault and machine, step by step, as far as step lets it.
func turn(t *testing.T, v *Vault, slots map[string]bool, step func(func()) bool) {
	t.Helper()
	var r Rotation
	var err error
	check := func() {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !step(func() { r, err = v.BeginRotation("fsn-1"); check() }) {
		return
	}
	if r.Phase == RotationAdding {
		if !step(func() { slots[string(r.Next.Reveal())] = true }) || !step(func() { r, err = v.CommitRotation("fsn-1", r.Generation); check() }) {
			return
		}
	}
	if !step(func() { delete(slots, string(r.Previous.Reveal())) }) {
		return
	}
	step(func() { _, err = v.EndRotation("fsn-1", r.Generation); check() })
}

func machineKey(t *testing.T, v *Vault) string {
	t.Helper()
	k, err := v.Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.MachineKey("fsn-1")
	if err != nil || string(r.Current.Reveal()) != string(k.MachineKey.Reveal()) {
		t.Fatalf("two current keys: %v", err)
	}
	return string(k.MachineKey.Reveal())
}

func TestARotationIsTakenOnOnce(t *testing.T) {
	v := newTestVault(t)
	other := reopen(t, v)
	a, err := v.BeginRotation("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.BeginRotation("fsn-1")
	if err != nil || string(a.Next.Reveal()) != string(b.Next.Reveal()) {
		t.Fatalf("two next keys: %v", err)
	}
	if _, err := v.CommitRotation("fsn-1", a.Generation); err != nil {
		t.Fatal(err)
	}
	if _, err := other.CommitRotation("fsn-1", b.Generation); !errors.Is(err, ErrRotated) {
		t.Errorf("committed twice: %v", err)
	}
	if _, err := other.EndRotation("fsn-1", b.Generation); !errors.Is(err, ErrRotated) {
		t.Errorf("ended in the generation before: %v", err)
	}
}

func TestUnlockStateOfTwoProcesses(t *testing.T) {
	v := newTestVault(t)
	other := reopen(t, v)
	done := make(chan error, 2)
	for i, from := range []*Vault{v, other} {
		go func() {
			for range 20 {
				_, err := from.UpdateUnlock("fsn-1", func(s *UnlockState) error {
					if s.Good == nil {
						s.Good = &GoodBoot{Files: map[string]string{}}
					}
					s.Good.Files["n"] += string(rune('a' + i))
					return nil
				})
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	s, err := v.UnlockState("fsn-1")
	if err != nil || len(s.Good.Files["n"]) != 40 {
		t.Errorf("%d of 40 changes are left: %v", len(s.Good.Files["n"]), err)
	}
	if s, err := v.UnlockState("fsn-9"); err != nil || s.Good != nil {
		t.Errorf("of an unknown node: %+v, %v", s, err)
	}
	if _, err := v.UpdateUnlock("../x", func(*UnlockState) error { return nil }); err == nil {
		t.Error("a name that leaves the folder was taken")
	}
}

func TestOrdersEnd(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		o    *Order
		want bool
	}{
		{nil, false}, {&Order{}, true}, {&Order{Until: now}, true}, {&Order{Until: now.Add(-time.Second)}, false},
	} {
		if c.o.Holds(now) != c.want {
			t.Errorf("%+v holds: %v", c.o, !c.want)
		}
	}
}

// TestCopiesOfAVaultMeetInABox: a copy that was not there when the key was exchanged learns it, and nobody else can.
func TestCopiesOfAVaultMeetInABox(t *testing.T) {
	v := newTestVault(t)
	machineKey(t, v)
	stale := copyOf(t, v)
	if _, err := stale.BeginRotation("fsn-1"); err != nil { // it was about to do the same
		t.Fatal(err)
	}
	r, err := v.BeginRotation("fsn-1")
	if err == nil {
		r, err = v.CommitRotation("fsn-1", r.Generation)
	}
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := v.SealMachineKey("fsn-1", r, Proven{"boot-2", "digest"})
	if err != nil || strings.Contains(string(sealed), string(r.Current.Reveal())) {
		t.Fatalf("the key is in clear, or %v", err)
	}
	proven, got, err := stale.AdoptMachineKey("fsn-1", sealed)
	if err != nil || proven != (Proven{"boot-2", "digest"}) || got.Phase != RotationIdle || got.Generation != 1 || machineKey(t, stale) != string(r.Current.Reveal()) {
		t.Errorf("%+v, %+v, %v", proven, got, err)
	}
	if _, same, err := v.AdoptMachineKey("fsn-1", sealed); err != nil || same.Phase != RotationRetiring {
		t.Errorf("its own box ended a rotation: %+v, %v", same, err)
	}
	if _, _, err := stale.AdoptMachineKey("fsn-2", sealed); !errors.Is(err, ErrTampered) {
		t.Errorf("another node's box: %v", err)
	}
	if _, _, err := newTestVault(t).AdoptMachineKey("fsn-1", sealed); err == nil {
		t.Error("another fleet's box was taken")
	}
	sealed[len(sealed)-1] ^= 1
	if _, _, err := stale.AdoptMachineKey("fsn-1", sealed); err == nil {
		t.Error("a damaged box was taken")
	}
}

func copyOf(t *testing.T, v *Vault) *Vault {
	t.Helper()
	to := filepath.Join(t.TempDir(), "secrets")
	if err := os.CopyFS(to, os.DirFS(v.dir)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(to, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return again
}
