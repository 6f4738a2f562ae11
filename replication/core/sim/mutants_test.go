//go:build mutants

package sim

import (
	"testing"

	"popfleet/replication/core"
)

// Every seeded mistake is noticed within so many seeds, and the machine without one is not.
const gate = 600

func TestMutants(t *testing.T) {
	for _, bug := range core.Bugs() {
		t.Run(bug.String(), func(t *testing.T) {
			t.Parallel()
			for s := uint64(1); s <= gate; s++ {
				if _, err := Run(s, Options{Prepare: func(m *core.Machine) { m.Seed(bug) }}); err != nil {
					t.Logf("caught: %.160s", err)
					return
				}
			}
			t.Errorf("not caught by %d seeds", gate)
		})
	}
}
