package daemon

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"popfleet/agents/collect"
	"popfleet/internal/control"
)

// playedTransport answers as the transport's control socket does.
type playedTransport struct{ detail any }

func (p playedTransport) Health() error { return nil }
func (p playedTransport) Status() control.Status {
	return control.Status{Service: "transport", State: control.Serving, Detail: p.detail}
}
func (p playedTransport) Drain()   {}
func (p playedTransport) Undrain() {}

func TestTheMeshIsHeard(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	type peer struct {
		Node    string  `json:"node"`
		SilentS float64 `json:"silent_s"`
		State   string  `json:"state"`
	}
	detail := map[string]any{"peers": []peer{{"a-1", 0.25, "serving"}, {"b-1", -1, "dead"}, {"c-1", 90, "dead"}}}
	go func() { done <- control.Serve(ctx, socket, playedTransport{detail}) }()
	m := mesh{[]collect.Service{{Name: "dns", Control: "/nowhere"}, {Name: "transport", Control: socket}}}
	var got map[string]time.Duration
	for deadline := time.Now().Add(20 * time.Second); ; {
		var err error
		if got, err = m.Heard(t.Context()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if len(got) != 2 || got["a-1"] != 250*time.Millisecond || got["c-1"] != 90*time.Second {
		t.Errorf("%v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := (mesh{}).Heard(t.Context()); err == nil {
		t.Error("no transport, and no word of it")
	}
}
