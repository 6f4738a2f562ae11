package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/internal/journal"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
)

// mortal counts every boundary at which a run touches the world: journal, vault, provider API, machines. At the chosen
// one the process "dies": nothing it does from then on has any effect.
type mortal struct {
	mu    sync.Mutex
	count int                // guarded by mu
	at    int                // guarded by mu
	where string             // guarded by mu: the boundary it died at
	kill  context.CancelFunc // guarded by mu
}

func (m *mortal) alive(where string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count++
	if m.count < m.at {
		return nil
	}
	if m.where == "" {
		m.where = where
	}
	m.kill()
	return errKilled
}

func (m *mortal) died() (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.where, m.where != ""
}

type mortalJournal struct {
	*mortal
	memoryJournal
}

func (j *mortalJournal) Begin(ctx context.Context, s journal.Step) (int64, error) {
	if err := j.alive("before begin of " + s.Op); err != nil {
		return 0, err
	}
	id, _ := j.memoryJournal.Begin(ctx, s)
	return id, j.alive("after begin of " + s.Op)
}

func (j *mortalJournal) End(ctx context.Context, id int64, o journal.Outcome) error {
	if err := j.alive("before end of " + j.op(id)); err != nil {
		return err
	}
	return j.memoryJournal.End(ctx, id, o)
}

func (j *mortalJournal) op(id int64) string {
	j.memoryJournal.mu.Lock()
	defer j.memoryJournal.mu.Unlock()
	return j.steps[id-1].Op
}

func (j *mortalJournal) Observe(_ context.Context, _, _, stage string, _ any) error {
	return j.alive("observed " + stage)
}

type mortalMemory struct {
	*mortal
	*vault.Vault
}

func (v mortalMemory) SetNodeState(name string, s vault.NodeState) error {
	if err := v.alive("before vault write"); err != nil {
		return err
	}
	if err := v.Vault.SetNodeState(name, s); err != nil {
		return err
	}
	return v.alive("after vault write")
}

type mortalTransport struct {
	*mortal
	http.RoundTripper
}

func (t mortalTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	call := r.Method + " " + r.URL.Path
	if err := t.alive("before " + call); err != nil {
		return nil, err
	}
	res, err := t.RoundTripper.RoundTrip(r)
	if err != nil || r.Method == http.MethodGet {
		return res, err
	}
	if dead := t.alive("reply of " + call); dead != nil {
		res.Body.Close()
		return nil, dead
	}
	return res, nil
}

type mortalDialer struct {
	*mortal
	dial.Dialer
}

func (d mortalDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := d.alive("dial " + addr); err != nil {
		return nil, err
	}
	return d.Dialer.DialContext(ctx, network, addr)
}

// liveUntil runs one up that dies at boundary k, and says where; false when it lived to the end.
func (w *world) liveUntil(t *testing.T, k int) (where string, died bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m := &mortal{at: k, kill: cancel}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	driver, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(w.lab.Token), Endpoint: w.lab.URL,
		Transport: mortalTransport{m, transport}, Pace: quickPace, CallTimeout: 3 * time.Second, Budget: 10 * time.Second, Backoff: 5 * time.Millisecond})
	must(t, err)
	defer func() { driver.Close(); transport.CloseIdleConnections() }()
	deps := w.newDeps(t)
	deps.Journal, deps.Memory = &mortalJournal{mortal: m}, mortalMemory{m, w.vault}
	deps.Dial = mortalDialer{m, deps.Dial}
	deps.Provider = func(string) (provider.Provider, error) { return driver.Machines(), nil }
	deps.Rent = func(ctx context.Context, node string) error {
		_, err := driver.EnsureServer(ctx, hetznercloud.ServerSpec{Name: node, ServerType: "cx23", Location: "fsn1", Image: "debian-12",
			Labels: hetznercloud.Labels("demo", node, node)})
		return err
	}
	results, err := lifecycle.Up(ctx, deps, w.nodes)
	if where, died = m.died(); died {
		return where, true
	}
	must(t, err)
	w.serving(t, results)
	return "", false
}

// TestKilledAnywhere kills up at every boundary there is, and runs it again: it must converge with one server per node
// and one wipe per disk.
func TestKilledAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("about a hundred lives")
	}
	var mu sync.Mutex
	lives, places := 0, map[string]int{}
	t.Run("lives", func(t *testing.T) {
		for worker := range 4 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for k := worker + 1; ; k += 4 {
					w := newWorld(t, inprocess.Options{}, 1)
					where, died := w.liveUntil(t, k)
					if !died {
						return
					}
					w.serving(t, w.up(t))
					w.exactlyOnce(t)
					if t.Failed() {
						t.Fatalf("died at boundary %d: %s", k, where)
					}
					mu.Lock()
					lives, places[where] = lives+1, places[where]+1
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("killed %d times, at %d different places; every second run converged, servers created = wanted, every disk wiped once", lives, len(places))
	if lives < 60 {
		t.Errorf("only %d boundaries were met", lives)
	}
}
