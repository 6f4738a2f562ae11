//go:build mutants

package core

import (
	"slices"

	"popfleet/replication/crdt"
)

type mutations struct{ seeded Bug }

func (m *mutations) bug(b Bug) bool { return m.seeded == b }

// Seed puts a mistake into a machine. It exists only with the build tag mutants.
func (m *Machine) Seed(b Bug) { m.seeded = b }

// mutate changes what a write is computed from, as an implementation that lacks a rule would.
func (m *mutations) mutate(state crdt.Doc, c *Change) crdt.Doc {
	switch {
	case m.seeded == MaximumIsSet:
		c.Ops = slices.Clone(c.Ops)
		for i := range c.Ops {
			if c.Ops[i].Kind == crdt.Max {
				c.Ops[i].Kind = crdt.Set
			}
		}
	case m.seeded == MissingSeen && c.Kind == Update && c.Ops[0].Kind == crdt.Set && state.Causal() == 1:
		if blank, err := crdt.FromDocument(state.Visible()); err == nil {
			return blank
		}
	}
	return state
}
