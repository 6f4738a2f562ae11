package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"popfleet/agents/collect"
	"popfleet/agents/peerunlock"
	"popfleet/internal/control"
)

// newPeers watches the nodes that this one holds a share of a key for. Without any in their file it does nothing; one
// that starts while others are locked finds them.
func newPeers(c Config, root string, log *slog.Logger, controlled func() bool) *peerunlock.Watcher {
	return peerunlock.New(peerunlock.Deps{Log: log, Alive: mesh{c.Services}, Controlled: controlled,
		File: filepath.Join("/", root, peerunlock.File), Memory: filepath.Join(c.Spool, "wards.json")})
}

// controlled says whether any controller took this node's newest reports.
func (a *agent) controlled() bool {
	return slices.ContainsFunc(a.links, func(l *link) bool { return l.status().Connected })
}

// mesh hears who lives from this node's transport: its heartbeats come over mTLS, from every node of the fleet
// (docs/formats/mesh.md).
type mesh struct{ services []collect.Service }

const meshTimeout = 5 * time.Second

var errNoMesh = errors.New("this node runs no transport: nobody's heartbeats are heard")

// Heard is how long ago each node's last heartbeat came.
func (m mesh) Heard(ctx context.Context) (map[string]time.Duration, error) {
	for _, s := range m.services {
		if s.Name == "transport" {
			ctx, cancel := context.WithTimeout(ctx, meshTimeout)
			defer cancel()
			return heard(ctx, s.Control)
		}
	}
	return nil, errNoMesh
}

func heard(ctx context.Context, socket string) (map[string]time.Duration, error) {
	st, err := control.Dial(socket).Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("transport's status: %w", err)
	}
	raw, err := json.Marshal(st.Detail)
	if err != nil {
		return nil, fmt.Errorf("transport's status: %w", err)
	}
	var detail struct {
		Peers []struct {
			Node    string  `json:"node"`
			SilentS float64 `json:"silent_s"`
		} `json:"peers"`
	}
	if err := json.Unmarshal(raw, &detail); err != nil {
		return nil, fmt.Errorf("transport's status: %w", err)
	}
	out := map[string]time.Duration{}
	for _, p := range detail.Peers {
		if p.SilentS >= 0 && p.SilentS < 1e6 { // -1: never heard
			out[p.Node] = time.Duration(p.SilentS * float64(time.Second))
		}
	}
	return out, nil
}
