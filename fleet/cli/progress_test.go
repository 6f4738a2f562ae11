package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"popfleet/provision/lifecycle"
	"popfleet/provision/stack"
)

func testProgress(out *bytes.Buffer) *progress {
	return &progress{out: &printer{out: out, err: out}, start: time.Now(), lines: map[string]*line{}, done: make(chan struct{})}
}

func TestAWaitShowsItsSecondsUntilItEnds(t *testing.T) {
	var out bytes.Buffer
	p := testProgress(&out)
	p.object(stack.Event{Node: "fsn-1", Key: "server.fsn-1", Phase: "done"})
	p.node(lifecycle.Event{Node: "fsn-1", Kind: lifecycle.EventWait, Op: lifecycle.OpUnlock, Text: "198.18.0.10:2222 to take its key",
		Since: time.Now().Add(-12 * time.Second)})
	if got := p.lines["fsn-1"].describe(); got != "198.18.0.10:2222 to take its key, 12 s" {
		t.Errorf("while it waits: %q", got)
	}
	p.node(lifecycle.Event{Node: "fsn-1", Kind: lifecycle.EventDone, Stage: lifecycle.Serving, Text: "done", Time: time.Now()})
	if got := p.lines["fsn-1"].describe(); got != "done" {
		t.Errorf("when it has ended: %q", got)
	}
	for _, want := range []string{"fsn-1    objects       server.fsn-1 done", "fsn-1    unlock        198.18.0.10:2222", "fsn-1    serving"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestWithoutATerminalAChangeIsOneLine(t *testing.T) {
	var out bytes.Buffer
	p := testProgress(&out)
	for range 3 {
		p.node(lifecycle.Event{Node: "fsn-1", Kind: lifecycle.EventWait, Op: lifecycle.OpInstall, Text: "the image", Since: time.Now()})
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines for one wait:\n%s", n, out.String())
	}
}
