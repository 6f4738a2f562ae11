package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
)

// boundary names the place in a run that an event marks: the begin or the end of an operation of a node, or of work on
// an object of the provider. "" is no boundary.
func boundary(e cliEvent) string {
	switch {
	case e.Kind == "node" && (e.Data["kind"] == "begin" || e.Data["kind"] == "end" || e.Data["kind"] == "done"):
		return fmt.Sprint(e.Node, " ", e.Data["op"], " ", e.Data["kind"])
	case e.Kind == "object" && e.Data["phase"] != "" && e.Data["waiting"] == "":
		return fmt.Sprint(e.Data["key"], " ", e.Data["phase"])
	case e.Kind == "plan":
		return "planned"
	}
	return ""
}

// upUntil runs `up` and kills it -9 as soon as it announces a boundary that fits. It returns that boundary, "" when the
// run lived to its end.
func (w *cliWorld) upUntil(t *testing.T, fits func(boundary string) bool) (place string) {
	t.Helper()
	c := w.start(t, "up", "--yes", "--json")
	c.until(t, func(e cliEvent) bool {
		if b := boundary(e); b != "" && fits(b) {
			place = b
		}
		return place != ""
	})
	if place != "" {
		must(t, c.cmd.Process.Kill())
		if o := c.wait(t); o.code != -9 {
			t.Fatalf("at %q: not killed: %s", place, o)
		}
		return place
	}
	if o := c.wait(t); o.code != 0 {
		t.Fatalf("up that was let live: %s", o)
	}
	return ""
}

// TestCLIKilledAtEveryBoundary kills the real process at every boundary there is: each run dies at the first boundary at
// which none has died before, and the next goes on from what it left, until one lives. A node that went on while no run
// watched has skipped boundaries, so fresh fleets follow until one meets none that is new. A life of its own for every
// boundary is in TestCLIKilledAfresh, behind the tag e2e.
func TestCLIKilledAtEveryBoundary(t *testing.T) {
	t.Parallel()
	began := time.Now()
	died, fleets := map[string]bool{}, 0
	for fresh := true; fresh; fleets++ {
		w := newCLIWorld(t, inprocess.Options{Timing: unhurried})
		fresh = w.killedWherever(t, died)
		w.exactlyOnce(t, 2)
		if t.Failed() {
			t.Fatalf("after deaths at %q", slices.Sorted(maps.Keys(died)))
		}
	}
	deaths := 0
	for _, killed := range died {
		if killed {
			deaths++
		}
	}
	t.Logf("killed -9 at %d of %d boundaries, in %d fleets, in %.0f s: each converged, 2 servers created for 2 wanted, each disk wiped once",
		deaths, len(died), fleets, time.Since(began).Seconds())
	if len(died) < 50 {
		t.Errorf("only %d boundaries were met: %q", len(died), slices.Sorted(maps.Keys(died)))
	}
}

// unhurried are machines slow enough for a run to be dead before its operation ends.
var unhurried = scripted.Timing{BootRescue: 50 * time.Millisecond, BootDisk: 50 * time.Millisecond, BootSystem: 50 * time.Millisecond,
	Step: 20 * time.Millisecond, Panic: 20 * time.Millisecond}

// killedWherever kills run after run of one fleet at boundaries that died has not, every one or with -short every fifth,
// until one lives. It says whether there were any.
func (w *cliWorld) killedWherever(t *testing.T, died map[string]bool) (any bool) {
	t.Helper()
	for {
		place := w.upUntil(t, func(b string) bool {
			if _, met := died[b]; met {
				return false
			}
			died[b] = !testing.Short() || len(died)%5 == 0
			any = true
			return died[b]
		})
		if place == "" {
			return any
		}
		if len(died) > 200 {
			t.Fatalf("no end of boundaries: %q", slices.Sorted(maps.Keys(died)))
		}
	}
}
