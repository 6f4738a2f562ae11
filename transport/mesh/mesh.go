// Package mesh keeps every transport in touch with every other: one mTLS stream each way per pair, a heartbeat per
// second on both sides of both, so that who lives, drains or is full is known everywhere within 3 s. It decides
// nothing: it tells what it heard. It never carries requests, keeps nothing on disk, and trusts only certificates of
// the fleet's CA that name the very peer expected. A peer that can't be reached is dead here, never an error.
package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"popfleet/dns/feed"
)

// Times of the protocol. A peer is dead after three silent seconds at most: deadAfter plus one check.
const (
	beatEvery    = time.Second
	deadAfter    = 2700 * time.Millisecond
	checkEvery   = 100 * time.Millisecond
	dialTimeout  = 2 * time.Second
	shakeTimeout = 3 * time.Second
	firstRetry   = 200 * time.Millisecond
	lastRetry    = 5 * time.Second
)

// Keys gives the certificate and the roots of trust that hold now; asked once per connection.
type Keys interface {
	Certificate() *tls.Certificate
	Roots() *x509.CertPool
}

// Peer is another transport as configured.
type Peer struct {
	Node    string `json:"node"`
	PoP     string `json:"pop"`
	Address string `json:"address"` // host:port of its mesh listener
}

// Config is what a mesh needs. Self is called for every heartbeat, from several goroutines, and fills what the node
// says of itself. Changed is called, from several goroutines and without a lock held, whenever what is known of a peer
// changed; it must not block.
type Config struct {
	Fleet   string
	Node    string
	Peers   []Peer
	Keys    Keys
	Self    func() Beat
	Changed func()
	Log     *slog.Logger
}

// Mesh is one node's view of all its peers.
type Mesh struct {
	cfg   Config
	peers map[string]*peer
	epoch uint64
	began time.Time
	seq   atomic.Uint64
}

// peer is what is known of one peer.
type peer struct {
	Peer
	mu sync.Mutex
	// guarded by mu
	beat    Beat
	heard   time.Time
	alive   bool
	rtt     time.Duration
	links   map[*link]bool // open streams, at most one of each direction
	problem string         // why the last dial came to nothing
}

// New makes a mesh that knows its peers and has heard of none.
func New(cfg Config) *Mesh {
	now := time.Now()
	m := &Mesh{cfg: cfg, peers: map[string]*peer{}, epoch: uint64(now.UnixNano()), began: now}
	for _, p := range cfg.Peers {
		m.peers[p.Node] = &peer{Peer: p, links: map[*link]bool{}}
	}
	return m
}

// Run listens on l and dials every peer until ctx ends; then it closes all streams and l, and returns nil. A listener
// that breaks is an error.
func (m *Mesh) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, p := range m.peers {
		running.Go(func() { m.keepDialing(ctx, p) })
	}
	running.Go(func() { m.watch(ctx) })
	return m.accept(ctx, l, &running)
}

// Announce sends a heartbeat to everybody now: the node's own state changed.
func (m *Mesh) Announce() {
	for _, p := range m.peers {
		p.mu.Lock()
		for k := range p.links {
			select {
			case k.now <- struct{}{}:
			default: // one is waiting already and will carry the newest state
			}
		}
		p.mu.Unlock()
	}
}

// watch turns silence into death.
func (m *Mesh) watch(ctx context.Context) {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			for _, p := range m.peers {
				if p.expire(now) {
					m.cfg.Log.Warn("peer dead", "peer", p.Node, "silent_s", deadAfter.Seconds())
					m.cfg.Changed()
				}
			}
		}
	}
}

func (p *peer) expire(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive || now.Sub(p.heard) < deadAfter {
		return false
	}
	p.alive, p.rtt = false, 0
	for k := range p.links {
		k.conn.NetConn().Close() // blackholed: let the dialer begin anew; a TLS goodbye would wait for it
	}
	return true
}

// hear takes a heartbeat from the peer. The two streams may overtake each other: only a newer one changes what is
// known, any of them shows life.
func (m *Mesh) hear(p *peer, b Beat, rtt time.Duration) {
	p.mu.Lock()
	before, wasAlive := p.beat, p.alive
	p.heard, p.alive = time.Now(), true
	if b.Epoch != before.Epoch || b.Seq > before.Seq {
		p.beat = b
	}
	if rtt > 0 {
		if p.rtt == 0 {
			p.rtt = rtt
		}
		p.rtt += (rtt - p.rtt) / 4
	}
	changed := !wasAlive || !same(before, p.beat)
	p.mu.Unlock()
	if !wasAlive {
		m.cfg.Log.Info("peer alive", "peer", p.Node, "state", b.State)
	}
	if changed {
		m.cfg.Changed()
	}
}

func same(a, b Beat) bool {
	x, y := feed.Map{Nodes: []feed.Node{a.feedNode()}}, feed.Map{Nodes: []feed.Node{b.feedNode()}}
	return x.SameNodes(y)
}
