package reshare

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"popfleet/internal/shares"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// header is a node as far as this package sees it: which keys open it, what its initramfs expects.
type header struct {
	t        *testing.T
	keys     map[string]bool
	expected shares.Commitments
	calls    int
	lose     bool // the answer: the act is done
	refuse   bool // before the act
}

var errCut = errors.New("cut")

func (h *header) call(_ context.Context, c remote.Call) error {
	h.calls++
	r := c.Spec.(spec.PeerKey)
	if h.refuse {
		return errCut
	}
	if c.Op != spec.OpPeerKey || r.Version != 1 || r.Node != "n-1" || len(r.MachineKey) == 0 {
		h.t.Errorf("op %s, version %d, node %s", c.Op, r.Version, r.Node)
	}
	h.expected = shares.Commitments{}
	if r.Commitments != "" {
		var err error
		if h.expected, err = shares.ParseCommitments(r.Commitments); err != nil {
			h.t.Error(err)
		}
	}
	var logins []string
	for _, l := range r.Logins {
		logins = append(logins, l.Node)
	}
	if !slices.Equal(logins, h.expected.Peers()) {
		h.t.Errorf("logins of %v, shares of %v", logins, h.expected.Peers())
	}
	if r.Step == spec.PeerKeyRetire {
		h.keys = map[string]bool{}
	}
	if len(r.Key) > 0 {
		h.keys[string(r.Key)] = true
	}
	if h.lose {
		return errCut
	}
	*c.Result.(*spec.PeerKeyed) = spec.PeerKeyed{Slots: []string{"1 machine pbkdf2"}}
	return nil
}

// opensWith says whether the node opens with the shares that these peers have in the vault's current generation.
func (h *header) opensWith(s vault.ShareState, peers ...string) bool {
	if s.Current == nil {
		return false
	}
	var lines []string
	for _, p := range peers {
		if l, ok := s.Current.Share(p); ok {
			lines = append(lines, string(l.Reveal()))
		}
	}
	for _, g := range h.expected.Generations {
		if g.Generation == s.Current.Generation() {
			key, err := shares.Combine(g, "n-1", lines)
			return err == nil && h.keys[key]
		}
	}
	return false
}

func newVault(t *testing.T) *vault.Vault {
	t.Helper()
	v, err := vault.Create(filepath.Join(t.TempDir(), "secrets"), inventory.SecretText("correct horse"), vault.Options{Fleet: "demo", WorkFactor: 10})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wish(peers ...string) Wish {
	return Wish{Node: "n-1", Install: "r1", Threshold: 2, Peers: peers}
}

func TestGiveAndRetire(t *testing.T) {
	v, h := newVault(t), &header{t: t, keys: map[string]bool{}}
	for range 2 { // the second time there is nothing to do
		s, err := Give(t.Context(), v, h.call, wish("a-1", "b-1"))
		if err != nil || !h.opensWith(s, "a-1", "b-1") {
			t.Fatal(s.Current, err)
		}
		if s, err = Retire(t.Context(), v, h.call, "n-1"); err != nil || s.Retiring || !h.opensWith(s, "b-1", "a-1") || len(h.keys) != 1 {
			t.Fatal(s.Current, err)
		}
	}
	p, err := Expected(v, "n-1")
	if err != nil || p == nil || p.Commitments != h.expected.Text() || len(p.Logins) != 2 || p.Logins[0].Node != "a-1" {
		t.Errorf("expected %+v, %v", p, err)
	}
	if h.calls != 2 {
		t.Errorf("%d calls", h.calls)
	}
	old, _ := v.Shares("n-1")
	s, err := Give(t.Context(), v, h.call, wish("a-1", "c-1"))
	if err != nil || !h.opensWith(s, "a-1", "c-1") || !h.opensWith(old, "a-1", "b-1") {
		t.Fatalf("before the peers have them, old and new shares open: %v", err)
	}
	if s, err = Retire(t.Context(), v, h.call, "n-1"); err != nil || !h.opensWith(s, "a-1", "c-1") || h.opensWith(old, "a-1", "b-1") || len(h.keys) != 1 {
		t.Fatalf("the removed node's share: %v", err)
	}
	if s, err = Give(t.Context(), v, h.call, Wish{Node: "n-1"}); err != nil || !s.Retiring {
		t.Fatal(err)
	}
	if s, err = Retire(t.Context(), v, h.call, "n-1"); err != nil || s.Retiring || len(h.keys) != 0 || len(h.expected.Generations) != 0 {
		t.Fatalf("switched off: %d keys, %v", len(h.keys), err)
	}
}

// TestCutAtEveryStep: before or after the node acted. What the vault calls current opens the node at every moment, and
// the next run ends with one key.
func TestCutAtEveryStep(t *testing.T) {
	for _, step := range []string{"give", "retire"} {
		for _, lost := range []bool{false, true} {
			v, h := newVault(t), &header{t: t, keys: map[string]bool{}}
			both := func(w Wish) (vault.ShareState, error) {
				if _, err := Give(t.Context(), v, h.call, w); err != nil {
					return vault.ShareState{}, err
				}
				return Retire(t.Context(), v, h.call, "n-1")
			}
			if _, err := both(wish("a-1", "b-1")); err != nil {
				t.Fatal(err)
			}
			if step == "retire" {
				if _, err := Give(t.Context(), v, h.call, wish("a-1", "c-1")); err != nil {
					t.Fatal(err)
				}
			}
			h.lose, h.refuse = lost, !lost
			if _, err := both(wish("a-1", "c-1")); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			s, err := v.Shares("n-1")
			if err != nil || !h.opensWith(s, "a-1", "b-1") && !h.opensWith(s, "a-1", "c-1") {
				t.Errorf("%s, lost %v: nobody can open it: %v", step, lost, err)
			}
			h.lose, h.refuse = false, false
			if s, err = both(wish("b-1", "c-1")); err != nil || len(h.keys) != 1 || !h.opensWith(s, "b-1", "c-1") {
				t.Errorf("%s, lost %v, run again: %d keys, %v", step, lost, len(h.keys), err)
			}
		}
	}
}

func TestWanted(t *testing.T) {
	fleet := []shares.Candidate{{Node: "a-1", PoP: "a"}, {Node: "a-2", PoP: "a"}, {Node: "b-1", PoP: "b"}}
	for _, c := range []struct {
		n, threshold, most, want int
	}{{3, 2, 5, 2}, {2, 2, 5, 0}, {3, 3, 5, 0}, {3, 0, 5, 0}, {3, 1, 5, 0}} {
		w := Wanted(fleet[0], "r1", fleet[:c.n], c.threshold, c.most)
		if len(w.Peers) != c.want || (w.Threshold == 0) != (c.want == 0) {
			t.Errorf("%+v: %+v", c, w)
		}
	}
}

// TestExpected: what is being exchanged is not compared, and nobody is somebody too.
func TestExpected(t *testing.T) {
	v, h := newVault(t), &header{t: t, keys: map[string]bool{}}
	want := func(when string, nothing bool, peers int) {
		t.Helper()
		if p, err := Expected(v, "n-1"); err != nil || (p == nil) != nothing || p != nil && len(p.Logins) != peers {
			t.Errorf("%s: %+v, %v", when, p, err)
		}
	}
	give := func(w Wish) {
		if _, err := Give(t.Context(), v, h.call, w); err != nil {
			t.Fatal(err)
		}
	}
	retire := func() {
		if _, err := Retire(t.Context(), v, h.call, "n-1"); err != nil {
			t.Fatal(err)
		}
	}
	want("before peers", false, 0)
	if give, _, err := Pending(v, wish("a-1", "b-1")); err != nil || !give {
		t.Fatal(give, err)
	}
	want("wished", true, 0)
	give(wish("a-1", "b-1"))
	want("given, not retired", true, 0)
	retire()
	want("given", false, 2)
	none := Wish{Node: "n-1", Install: "r1"}
	give(none)
	want("taken away, not retired", true, 0)
	retire()
	want("taken away", false, 0)
}
