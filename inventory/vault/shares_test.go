package vault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"popfleet/internal/shares"
)

func holders(t *testing.T, v *Vault, names ...string) (out []Holder) {
	t.Helper()
	for _, n := range names {
		k, err := v.PeerLogin(n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Holder{n, k.Public})
	}
	return out
}

// through plays the node's part of an exchange that succeeds.
func through(t *testing.T, v *Vault, w ShareWish) ShareState {
	t.Helper()
	s, err := v.WantShares("n-1", w)
	if err == nil && s.Next != nil {
		s, err = v.CommitShares("n-1", s.Next.Generation())
	}
	if err == nil && s.Retiring {
		s, err = v.EndShares("n-1", number(s.Current))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSharesFollowTheWish(t *testing.T) {
	v := newTestVault(t)
	abc := ShareWish{"run1", 2, holders(t, v, "a-1", "b-1", "c-1")}
	first := through(t, v, abc)
	if first.Generation != 1 || first.Current == nil || first.Current.Threshold() != 2 || len(first.Current.Holders()) != 3 {
		t.Fatalf("%+v", first)
	}
	again := through(t, v, ShareWish{"run1", 2, []Holder{abc.Holders[2], abc.Holders[0], abc.Holders[1]}})
	if again.Generation != 1 || again.Current.Key().Reveal() == nil || string(again.Current.Key().Reveal()) != string(first.Current.Key().Reveal()) {
		t.Errorf("the same wish made another key: %+v", again)
	}
	var lines []string
	for _, n := range []string{"a-1", "c-1"} {
		l, ok := again.Current.Share(n)
		if !ok {
			t.Fatal(n)
		}
		lines = append(lines, string(l.Reveal()))
	}
	if key, err := shares.Combine(again.Current.Commit(), "n-1", lines); err != nil || key != string(again.Current.Key().Reveal()) {
		t.Errorf("two shares: %v", err)
	}
	if err := v.Forget("b-1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		wish ShareWish
	}{
		{"a peer removed", ShareWish{"run1", 2, holders(t, v, "a-1", "c-1")}},
		{"a peer replaced", ShareWish{"run1", 2, holders(t, v, "a-1", "b-1", "c-1")}},
		{"another threshold", ShareWish{"run1", 3, abc.Holders}},
		{"another installation", ShareWish{"run2", 2, abc.Holders}},
		{"back to the first", abc},
	} {
		name, was := c.name, mustShares(t, v)
		s := through(t, v, c.wish)
		if s.Generation != was.Generation+1 || string(s.Current.Key().Reveal()) == string(was.Current.Key().Reveal()) {
			t.Errorf("%s: %v, then %v", name, was.Current, s.Current)
		}
	}
	if s := through(t, v, ShareWish{}); s.Current != nil || s.Next != nil || s.Retiring {
		t.Errorf("switched off: %+v", s)
	}
	if s := through(t, v, abc); s.Generation != 7 {
		t.Errorf("a number was used again: %+v", s)
	}
}

func mustShares(t *testing.T, v *Vault) ShareState {
	t.Helper()
	s, err := v.Shares("n-1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpentSharesAreReplaced(t *testing.T) {
	v := newTestVault(t)
	w := ShareWish{"run1", 2, holders(t, v, "a-1", "b-1")}
	through(t, v, w)
	for range 2 {
		if _, err := v.SpendShares("n-1", 1); err != nil {
			t.Fatal(err)
		}
	}
	if s := through(t, v, w); s.Generation != 2 || s.Current.Spent {
		t.Errorf("%+v", s)
	}
	if s, err := v.SpendShares("n-1", 1); err != nil || s.Current.Spent {
		t.Errorf("an old one spent: %+v, %v", s, err)
	}
}

// TestReshareCutBetweenSteps: with a process that ends after any step, the next one goes on and never forgets a key that
// the node may hold without saying that some are to be destroyed.
func TestReshareCutBetweenSteps(t *testing.T) {
	v := newTestVault(t)
	ab, ac := ShareWish{"run1", 2, holders(t, v, "a-1", "b-1")}, ShareWish{"run1", 2, holders(t, v, "a-1", "c-1")}
	through(t, v, ab)
	begun, err := v.WantShares("n-1", ac)
	if err != nil || begun.Next == nil || begun.Current.Generation() != 1 {
		t.Fatalf("%+v, %v", begun, err)
	}
	again, err := v.WantShares("n-1", ac)
	if err != nil || again.Next.Generation() != 2 || string(again.Next.Key().Reveal()) != string(begun.Next.Key().Reveal()) {
		t.Errorf("begun again: %+v, %v", again, err)
	}
	if back, err := v.WantShares("n-1", ab); err != nil || back.Next != nil || !back.Retiring {
		t.Errorf("the wish went back: %+v, %v", back, err)
	}
	if _, err := v.CommitShares("n-1", 2); !errors.Is(err, ErrRotated) {
		t.Errorf("a generation that was given up is committed: %v", err)
	}
	third, err := v.WantShares("n-1", ac)
	if err != nil || third.Next.Generation() != 3 {
		t.Fatalf("%+v, %v", third, err)
	}
	if _, err := v.EndShares("n-1", 1); !errors.Is(err, ErrRotated) {
		t.Errorf("ended while one is to come: %v", err)
	}
	if s, err := v.CommitShares("n-1", 3); err != nil || !s.Retiring || s.Current.Generation() != 3 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := v.EndShares("n-1", 1); !errors.Is(err, ErrRotated) {
		t.Errorf("the wrong one ended: %v", err)
	}
}

func TestWardsLeaveOutWhoIsNotToBeUnlocked(t *testing.T) {
	v := newTestVault(t)
	if _, held, err := v.Wards("a-1", []string{"a-1", "n-1"}); err != nil || held {
		t.Errorf("nothing was ever cut: %v, %v", held, err)
	}
	through(t, v, ShareWish{"run1", 2, holders(t, v, "a-1", "b-1")})
	wards := func(name string) int {
		t.Helper()
		w, held, err := v.Wards(name, []string{"a-1", "b-1", "c-1", "n-1"})
		if err != nil || !held {
			t.Fatal(held, err)
		}
		for _, one := range w {
			if one.Node != "n-1" || one.HostKey != "pin" || one.Share.Empty() || strings.Contains(fmt.Sprintf("%v %+v %#v", one, one, one), "popfleet-share") {
				t.Errorf("%+v", one)
			}
		}
		return len(w)
	}
	state := func(s NodeState) {
		t.Helper()
		if err := v.SetNodeState("n-1", s); err != nil {
			t.Fatal(err)
		}
	}
	said := func(change func(*UnlockState)) {
		t.Helper()
		if _, err := v.UpdateUnlock("n-1", func(s *UnlockState) error { *s = UnlockState{}; change(s); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	good := NodeState{InstallRun: "run1", Sealed: true, InitramfsHostKey: "pin"}
	state(good)
	if wards("a-1") != 1 || wards("c-1") != 0 || wards("n-1") != 0 {
		t.Error("a holder has no ward, or another has")
	}
	for name, spoil := range map[string]func(){
		"kill switch":  func() { said(func(s *UnlockState) { s.Never = &Order{By: "me"} }) },
		"suspect":      func() { said(func(s *UnlockState) { s.Suspect = &Suspicion{Why: "x"} }) },
		"quarantine":   func() { q := good; q.Quarantine = &Order{}; state(q) },
		"not sealed":   func() { q := good; q.Sealed = false; state(q) },
		"reinstalling": func() { q := good; q.InstallRun = "run2"; state(q) },
	} {
		said(func(*UnlockState) {})
		state(good)
		if spoil(); wards("a-1") != 0 {
			t.Errorf("%s: it is handed over", name)
		}
	}
	state(good)
	said(func(s *UnlockState) { s.Never = &Order{Until: time.Now().Add(-time.Hour)} })
	if wards("a-1") != 1 {
		t.Error("an order that ended still holds")
	}
}

func TestNothingOfSharesIsPrinted(t *testing.T) {
	v := newTestVault(t)
	s := through(t, v, ShareWish{"run1", 2, holders(t, v, "a-1", "b-1")})
	key := string(s.Current.Key().Reveal())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{s, *s.Current, s.Current} {
			if text := fmt.Sprintf(verb, x); strings.Contains(text, key) || strings.Contains(text, "popfleet-share") {
				t.Errorf("%s %T: %s", verb, x, text)
			}
		}
	}
}
