//go:build e2e

package e2e

import (
	"testing"

	"popfleet/lab/inprocess"
)

// TestCLIKilledAfresh kills a fresh `up` at its k-th boundary, for all k until one lives, and runs it again: each time it
// must converge with one server per node and one wipe per disk.
func TestCLIKilledAfresh(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	lives := 0
	for k := 1; ; k += step {
		w := newCLIWorld(t, inprocess.Options{})
		met := 0
		place := w.upUntil(t, func(string) bool { met++; return met == k })
		if place == "" {
			break
		}
		lives++
		w.want(t, 0, "up", "--yes")
		w.exactlyOnce(t, 2)
		if t.Failed() {
			t.Fatalf("killed at boundary %d: %s", k, place)
		}
	}
	t.Logf("killed at %d boundaries, each in a life of its own: every second run converged, servers created = wanted, every disk wiped once", lives)
}
