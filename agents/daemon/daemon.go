// Package daemon is fleet-agent run: every interval it makes a report, keeps it in the spool, and gives it to every
// controller over mTLS, each on its own, so that one that is away delays none of the others. It takes no orders but the
// wanted interval. Beside that it watches the node's wards (package peerunlock). A controller that is away gets what it missed, newest first, when it is back. Health is whether
// reports are being made; that a controller is away is told in the status and is no illness of the node.
package daemon

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"popfleet/agents/collect"
	"popfleet/agents/collect/smart"
	"popfleet/agents/daemon/spool"
	"popfleet/agents/mirror"
	"popfleet/agents/peerunlock"
	"popfleet/internal/control"
	"popfleet/internal/mtls"
	"popfleet/internal/version"
)

// Deps is what Run is given from outside.
type Deps struct {
	Log   *slog.Logger
	Disks smart.Source // who reads the disks
	Root  string       // of the machine looked at; "" outside of tests
	Pace  Pace         // zero values mean the defaults
}

// Run reports until ctx ends. What no controller has taken by then is on disk.
func Run(ctx context.Context, c Config, d Deps) error {
	id, err := mtls.FromFiles(c.TLS)
	if err != nil {
		return err
	}
	watch := &smart.Watch{Source: d.Disks, File: filepath.Join(c.Spool, "disks.json"), Log: d.Log}
	mirrors := &mirror.Watch{Host: mirror.Host{Root: d.Root}, File: filepath.Join(c.Spool, "mirrors.json"), Log: d.Log}
	collector, err := collect.New(c.Node, d.Root, c.Services, watch, mirrors)
	if err != nil {
		return err
	}
	store, err := spool.Open(filepath.Join(c.Spool, "spool"), c.Controllers, spool.Options{})
	if err != nil {
		return err
	}
	a := &agent{cfg: c, log: d.Log, collector: collector, spool: store, interval: time.Duration(c.Interval)}
	a.peers = newPeers(c, d.Root, d.Log, a.controlled)
	a.seq = max(a.lastSeq(), uint64(collector.Uptime().Seconds()))
	for _, address := range c.Controllers {
		a.links = append(a.links, newLink(address, c.Fleet, id, store, d.Log, d.Pace.orDefault()))
	}
	d.Log.Info("agent reports", "node", c.Node, "controllers", c.Controllers, "interval", a.interval.String(), "version", version.Version)
	return errors.Join(a.run(ctx, watch), store.Close())
}

// agent is a running agent and its face on the control socket.
type agent struct {
	cfg       Config
	log       *slog.Logger
	collector *collect.Collector
	spool     *spool.Spool
	links     []*link
	peers     *peerunlock.Watcher
	seq       uint64 // of the newest report; only run's goroutine uses it

	mu       sync.Mutex
	interval time.Duration
	reported time.Time // the newest report was made; zero: none yet
	failure  error     // of the newest attempt
}

// lastSeq is where an earlier run in the same boot ended, as far as the spool tells. There is at most one report per
// second, so a number from the uptime is larger than any of this boot's that a sick disk may have lost.
func (a *agent) lastSeq() uint64 {
	last, ok := a.spool.Last()
	if !ok {
		return 0
	}
	var r struct {
		BootID string `json:"boot_id"`
		Seq    uint64 `json:"seq"`
	}
	z, err := gzip.NewReader(bytes.NewReader(last.Payload))
	if err != nil || json.NewDecoder(z).Decode(&r) != nil || r.BootID != a.collector.BootID() {
		return 0
	}
	return r.Seq
}

// run keeps the parts together; the control socket's failure ends all, nothing else does.
func (a *agent) run(ctx context.Context, watch *smart.Watch) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { watch.Run(ctx) })
	wg.Go(func() { a.peers.Run(ctx) })
	for _, l := range a.links {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Go(func() { a.report(ctx) })
	return control.Serve(ctx, a.cfg.Control, a)
}

// report makes reports, one per interval, until ctx ends.
func (a *agent) report(ctx context.Context) {
	pack := gzip.NewWriter(nil)
	next := time.Now()
	for {
		err := a.once(ctx, pack)
		if ctx.Err() != nil {
			return
		}
		a.note(err)
		next = next.Add(a.wanted())
		if time.Until(next) < 0 { // the machine slept or was busy: no burst to catch up
			next = time.Now()
		}
		wait(ctx, time.Until(next), nil)
	}
}

// once makes a report, keeps it, and wakes the links.
func (a *agent) once(ctx context.Context, pack *gzip.Writer) error {
	r, err := a.collector.Report(ctx)
	if err != nil {
		return err
	}
	a.seq++
	r.Seq = a.seq
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a report: %w", err)
	}
	packed, err := gzipped(pack, raw)
	if err != nil {
		return err
	}
	err = a.spool.Append(packed, len(raw))
	for _, l := range a.links {
		l.wake()
	}
	return err
}

func gzipped(pack *gzip.Writer, raw []byte) ([]byte, error) {
	var b bytes.Buffer
	pack.Reset(&b)
	if _, err := pack.Write(raw); err != nil {
		return nil, err
	}
	err := pack.Close()
	return b.Bytes(), err
}

func (a *agent) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && (a.failure == nil || a.failure.Error() != err.Error()) {
		a.log.Error("report is not as it should be", "error", err)
	}
	a.failure = err
	a.reported = time.Now()
}

// wanted is the shortest interval any controller asks for, or the configured one.
func (a *agent) wanted() time.Duration {
	shortest := time.Duration(0)
	for _, l := range a.links {
		if d := l.wantedInterval(); d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	if shortest == 0 {
		shortest = time.Duration(a.cfg.Interval)
	}
	shortest = min(max(shortest, minInterval), maxInterval)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.interval = shortest
	return shortest
}

// Health is nil while reports are made and kept.
func (a *agent) Health() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.reported.IsZero():
		return errors.New("no report yet")
	case a.failure != nil:
		return a.failure
	case time.Since(a.reported) > 3*a.interval+10*time.Second:
		return fmt.Errorf("no report for %s", time.Since(a.reported).Round(time.Second))
	}
	return nil
}

type detail struct {
	Node        string       `json:"node"`
	BootID      string       `json:"boot_id"`
	Interval    string       `json:"interval"`
	Controllers []linkStatus `json:"controllers"`
	// Wards are the nodes that this one holds a share of a key for.
	Wards []peerunlock.Status `json:"wards,omitempty"`
}

func (a *agent) Status() control.Status {
	a.mu.Lock()
	interval := a.interval
	a.mu.Unlock()
	d := detail{Node: a.cfg.Node, BootID: a.collector.BootID(), Interval: interval.String(), Controllers: []linkStatus{},
		Wards: a.peers.Status()}
	for _, l := range a.links {
		d.Controllers = append(d.Controllers, l.status())
	}
	return control.Status{Service: "agent", Version: version.Version, State: control.Serving, Detail: d}
}

// Drain does nothing: a node that leaves is still to be heard of.
func (a *agent) Drain()   {}
func (a *agent) Undrain() {}
