package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"popfleet/internal/control"
	"popfleet/internal/mtls"
	"popfleet/internal/version"
	"popfleet/replication/peers"
	"popfleet/replication/splice"
)

// drainLimit is how long commands on their way may take after the end was asked for.
const drainLimit = 15 * time.Second

// Ready tells the addresses a running replicator listens on.
type Ready func(app, peers net.Addr)

// Run serves until ctx ends, then lets commands on their way finish. ready may be nil.
func Run(ctx context.Context, c Config, log *slog.Logger, ready Ready) error {
	id, err := mtls.FromFiles(c.TLS)
	if err != nil {
		return err
	}
	store, err := c.storeAddress()
	if err != nil {
		return err
	}
	appListener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for the app: %w", err)
	}
	defer appListener.Close()
	peerListener, err := net.Listen("tcp", c.PeerListen)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	defer peerListener.Close()
	d := &daemon{store: store, proxy: splice.New(store, log), links: peers.New(peersConfig(c), id, log)}
	if ready != nil {
		ready(appListener.Addr(), peerListener.Addr())
	}
	log.Info("replicator serves", "listen", c.Listen, "store", store, "peers", len(c.Peers), "replicating", false, "version", version.Version)
	return d.run(ctx, c.Control, appListener, peerListener)
}

func peersConfig(c Config) peers.Config {
	p := peers.Config{Fleet: c.Fleet, Node: c.Node}
	for _, peer := range c.Peers {
		p.Peers = append(p.Peers, peers.Peer(peer))
	}
	return p
}

// daemon is a running replicator and its face on the control socket.
type daemon struct {
	store string
	proxy *splice.Proxy
	links *peers.Set

	mu       sync.Mutex
	draining bool
}

// run keeps the parts together: the first that fails ends all. At the end of ctx the app's connections live on until
// nothing is on its way, bounded by drainLimit.
func (d *daemon) run(ctx context.Context, socket string, appListener, peerListener net.Listener) error {
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	failures := make(chan error, 3)
	start := func(f func() error) { wg.Go(func() { failures <- f() }) }
	start(func() error { return d.proxy.Serve(parts, appListener) })
	start(func() error { return d.links.Run(parts, peerListener) })
	start(func() error { return control.Serve(parts, socket, d) })
	var first error
	select {
	case <-ctx.Done():
		d.Drain()
		appListener.Close()
		d.settle()
	case first = <-failures:
		if first == nil {
			first = errors.New("a part of the replicator ended by itself")
		}
	}
	stop()
	wg.Wait()
	return first
}

func (d *daemon) settle() {
	deadline := time.After(drainLimit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for d.proxy.Counters().InFlight > 0 {
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// Health is whether the store takes connections: without it no request of the app can be answered.
func (d *daemon) Health() error {
	c, err := net.DialTimeout("tcp", d.store, time.Second)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return c.Close()
}

type detail struct {
	Replicating bool            `json:"replicating"`
	Why         string          `json:"why"`
	Store       string          `json:"store"`
	Traffic     splice.Counters `json:"traffic"`
	Pairs       []peers.Pair    `json:"pairs"`
}

func (d *daemon) Status() control.Status {
	traffic := d.proxy.Counters()
	state := control.Serving
	d.mu.Lock()
	draining := d.draining
	d.mu.Unlock()
	switch {
	case draining && traffic.InFlight == 0:
		state = control.Drained
	case draining:
		state = control.Draining
	}
	return control.Status{Service: "replicator", Version: version.Version, State: state, Detail: detail{
		Why: "this version only forwards: a write stays on the node that took it", Store: d.store, Traffic: traffic, Pairs: d.links.Pairs()}}
}

// Drain tells that the node is leaving. Requests go on being forwarded: the app drains before us, and what it still
// asks must be answered.
func (d *daemon) Drain()   { d.set(true) }
func (d *daemon) Undrain() { d.set(false) }

func (d *daemon) set(draining bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = draining
}
