//go:build e2e

package front

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"popfleet/replication/wire"
)

// The drivers of other languages, as an application uses them. They are looked for where their languages look
// (PYTHONPATH, NODE_PATH); without them the test says what to install.
func TestOtherDrivers(t *testing.T) {
	for name, d := range map[string]struct{ program, probe, flag, script, install string }{
		"python": {"python3", "import pymongo", "-c", "testdata/smoke.py", "apt-get install python3-pymongo"},
		"node":   {"node", `require("mongodb")`, "-e", "testdata/smoke.js", "npm install mongodb, and NODE_PATH at its node_modules"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := exec.Command(d.program, d.flag, d.probe).CombinedOutput(); err != nil {
				t.Skipf("no driver for %s here (%s): %v\n%s", name, d.install, err, out)
			}
			h := newToy()
			h.fail["insert"] = []error{&wire.CommandError{Code: wire.CodeShutdownInProgress, Name: "ShutdownInProgress", Message: "later", Labels: []string{"RetryableWriteError"}}}
			_, address, _, _ := serveToy(t, users(t), h, quiet())
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, d.program, d.script, "mongodb://app:pencil@"+address+"/?authSource=admin",
				"mongodb://app:eraser@"+address+"/?authSource=admin").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			arrived(t, h)
		})
	}
}

// arrived looks whether the driver took us for what we say we are.
func arrived(t *testing.T, h *toy) {
	inserts := h.of("insert")
	if len(inserts) < 2 || !inserts[0].Session.Retryable || inserts[0].Session.TxnNumber != inserts[1].Session.TxnNumber {
		t.Errorf("a failed insert did not come again: %+v", inserts)
	}
	nearest, unanswered, causal := false, false, false
	for _, r := range h.of("find") {
		nearest = nearest || r.ReadPreference.Mode == Nearest && len(r.ReadPreference.Tags) == 1
		causal = causal || r.ReadConcern.AfterClusterTime.T == 77
	}
	for _, r := range inserts {
		unanswered = unanswered || r.NoReply
	}
	if !nearest || !unanswered || !causal || len(h.of("getMore")) == 0 {
		t.Errorf("read preference %v, w:0 %v, causal read %v, getMore %d", nearest, unanswered, causal, len(h.of("getMore")))
	}
}
