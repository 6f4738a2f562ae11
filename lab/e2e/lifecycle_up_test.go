package e2e

import (
	"testing"
	"time"

	"popfleet/lab/inprocess"
	"popfleet/provision/lifecycle"
)

func TestUpFromNothing(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 3)
	start := time.Now()
	w.serving(t, w.up(t))
	t.Logf("three nodes from nothing to serving in %s\n%s", time.Since(start).Round(time.Millisecond), w.story("fsn-1"))
	w.exactlyOnce(t)
	for _, n := range w.nodes {
		l := w.lab.Machine(t, n.Name).Ledger()
		if u := l.Unlocks(); len(u) != 1 || u[0].Outcome != "opened" {
			t.Errorf("%s was unlocked by %+v", n.Name, u)
		}
		if l.Seals() != 1 || l.Applies() != 1 {
			t.Errorf("%s: %d seals, %d applies", n.Name, l.Seals(), l.Applies())
		}
	}
	before := w.lab.Machine(t, "fsn-1").Ledger().Applies()
	again := w.up(t)
	w.serving(t, again)
	for _, r := range again {
		if r.Changed {
			t.Errorf("%s was changed by a second up", r.Node)
		}
	}
	if got := w.lab.Machine(t, "fsn-1").Ledger().Applies(); got != before {
		t.Error("a second up applied something")
	}
}

func TestProposeTouchesNothing(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 2)
	proposals, err := lifecycle.Propose(t.Context(), w.deps, w.nodes, "image")
	must(t, err)
	for _, p := range proposals {
		if p.Err != nil || p.Seen.Stage != lifecycle.Absent || len(p.Plan) == 0 || p.Plan[0].Op != lifecycle.OpRent {
			t.Errorf("%+v", p)
		}
	}
	w.serving(t, w.up(t))
	w.deps.Compiler = &compiler{content: "second"}
	proposals, err = lifecycle.Propose(t.Context(), w.deps, w.nodes, "image")
	must(t, err)
	for _, p := range proposals {
		if p.Err != nil || len(p.Plan) != 1 || p.Plan[0].Op != lifecycle.OpConverge || len(p.Diff) == 0 {
			t.Errorf("%+v", p)
		}
	}
	if n := w.lab.Machine(t, "fsn-1").Ledger().Applies(); n != 1 {
		t.Errorf("%d applies, a proposal must not apply", n)
	}
	w.serving(t, w.up(t))
}

func TestPowerCycleIsUnlocked(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	w.serving(t, w.up(t))
	m := w.lab.Machine(t, "fsn-1")
	must(t, m.Reset(t.Context()))
	w.until(t, "fsn-1", lifecycle.Locked)
	r, err := lifecycle.Unlock(t.Context(), w.deps, w.nodes[0])
	must(t, err)
	if r.Err != nil {
		t.Fatalf("%v\n%s", r.Err, w.story("fsn-1"))
	}
	if u := m.Ledger().Unlocks(); len(u) != 2 || u[1].Outcome != "opened" {
		t.Errorf("unlocks: %+v", u)
	}
	w.serving(t, w.up(t))
}

func TestWipe(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 3)
	w.nodes = w.nodes[:2]
	w.serving(t, w.up(t))
	must(t, w.lab.Machine(t, "fsn-2").Reset(t.Context())) // wiped from rescue, being locked
	results, err := lifecycle.Wipe(t.Context(), w.deps, append(w.nodes, lifecycle.Node{Name: "fsn-3", Machine: w.nodes[0].Machine}))
	must(t, err)
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%v\n%s", r.Err, w.story(r.Node))
		}
	}
	for _, n := range w.nodes {
		if got := w.lab.Machine(t, n.Name).Ledger().KeysWiped(); len(got) != 1 {
			t.Errorf("%s: key slots wiped on %v", n.Name, got)
		}
	}
}
