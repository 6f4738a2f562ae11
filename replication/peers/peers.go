// Package peers keeps one mTLS link to every other node's replicator and measures it: each second a heartbeat with four
// timestamps, so that reachability, round trip and clock offset of the directed pair peer → this node are real. It
// carries no data yet. A link that breaks is dialed again with growing, jittered pauses; what was measured before is
// then shown as old, never as current.
package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"popfleet/internal/mtls"
)

// Service is the name in peers' certificates.
const Service = "replicator"

// States of a pair.
const (
	NeverConnected = "never_connected"
	Connected      = "connected"
	Stalled        = "stalled" // no heartbeat answered for StalledAfter
)

// Peer is another node and where its replicator listens.
type Peer struct{ Node, Address string }

// Config is a set of links. The zero durations mean the defaults.
type Config struct {
	Fleet, Node  string
	Peers        []Peer
	Heartbeat    time.Duration // default 1s
	StalledAfter time.Duration // default 3s
	MaxPause     time.Duration // between dials; default 5s
}

// Pair is one directed link as its receiver sees it. Field names are those of the agents' report. Unknown is null.
type Pair struct {
	From        string   `json:"from"`
	State       string   `json:"state"`
	Replicating bool     `json:"replicating"`
	RTTMs       *float64 `json:"rtt_ms"`
	OffsetMs    *float64 `json:"clock_offset_ms"` // peer's clock − ours
	AgeSec      *float64 `json:"heartbeat_age_sec"`
	Error       string   `json:"error,omitempty"` // why there is no connection
}

// Set is the links of one node.
type Set struct {
	cfg Config
	id  *mtls.Identity
	log *slog.Logger

	mu    sync.Mutex
	links map[string]*link
}

// link is what is known of one pair.
type link struct {
	rtt, offset time.Duration
	heard       time.Time // zero: never
	err         error
}

// New makes the set; Run starts it.
func New(c Config, id *mtls.Identity, log *slog.Logger) *Set {
	c.Heartbeat = or(c.Heartbeat, time.Second)
	c.StalledAfter = or(c.StalledAfter, 3*c.Heartbeat)
	c.MaxPause = or(c.MaxPause, 5*time.Second)
	s := &Set{cfg: c, id: id, log: log, links: map[string]*link{}}
	for _, p := range c.Peers {
		s.links[p.Node] = &link{}
	}
	return s
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// Pairs is a snapshot, in the order of the configuration.
func (s *Set) Pairs() []Pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	pairs := []Pair{}
	for _, p := range s.cfg.Peers {
		pairs = append(pairs, s.pair(p.Node, s.links[p.Node]))
	}
	return pairs
}

func (s *Set) pair(from string, l *link) Pair {
	p := Pair{From: from, State: NeverConnected}
	if l.err != nil {
		p.Error = l.err.Error()
	}
	if l.heard.IsZero() {
		return p
	}
	age := time.Since(l.heard).Seconds()
	p.AgeSec, p.State = &age, Stalled
	if time.Since(l.heard) <= s.cfg.StalledAfter {
		rtt, offset := ms(l.rtt), ms(l.offset)
		p.State, p.RTTMs, p.OffsetMs, p.Error = Connected, &rtt, &offset, ""
	}
	return p
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Run answers peers on l and keeps a link to each until ctx ends; it returns when nothing of it runs any more.
func (s *Set) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, p := range s.cfg.Peers {
		wg.Go(func() { s.keep(ctx, p) })
	}
	return s.serve(ctx, l, &wg, cancel)
}

func (s *Set) serve(ctx context.Context, l net.Listener, wg *sync.WaitGroup, cancel func()) error {
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	config := s.id.Server(s.mayCall)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept a peer's connection: %w", err)
		}
		wg.Go(func() { s.answer(ctx, tls.Server(c, config)) })
	}
}

// mayCall lets in the replicators of this fleet's other nodes that we were told of.
func (s *Set) mayCall(n mtls.Name) error {
	if n.Fleet == s.cfg.Fleet && n.Service == Service && s.links[n.Node] != nil {
		return nil
	}
	return &mtls.PeerError{Want: "a replicator of fleet " + s.cfg.Fleet + " named in the configuration", Got: n.String()}
}

// silence is how long either end may say nothing before the link is given up.
func (s *Set) silence() time.Duration { return 2 * s.cfg.StalledAfter }

// answer sends a pong for each ping.
func (s *Set) answer(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for {
		c.SetDeadline(time.Now().Add(s.silence() + 10*time.Second))
		kind, payload, err := readFrame(c)
		received := time.Now()
		if errors.Is(err, ErrFrame) {
			s.log.Warn("peer's connection closed", "from", c.RemoteAddr().String(), "reason", err.Error())
		}
		if err != nil {
			return
		}
		if kind != kindPing {
			continue
		}
		p, err := parsePing(payload)
		if err != nil {
			return
		}
		if _, err := c.Write(pong{p, received.UnixNano(), time.Now().UnixNano()}.frame()); err != nil {
			return
		}
	}
}

// keep dials one peer again and again.
func (s *Set) keep(ctx context.Context, p Peer) {
	pause := 200 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		err := s.talk(ctx, p)
		if ctx.Err() != nil {
			return
		}
		s.failed(p.Node, err)
		if time.Since(began) > time.Minute {
			pause = 200 * time.Millisecond
		}
		wait(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, s.cfg.MaxPause)
	}
}

func (s *Set) failed(node string, err error) {
	s.mu.Lock()
	l := s.links[node]
	news := l.err == nil || l.err.Error() != err.Error()
	l.err = err
	s.mu.Unlock()
	if news {
		s.log.Warn("link to peer lost", "peer", node, "error", err)
	}
}

// talk holds one connection: a ping each heartbeat, the answers read beside.
func (s *Set) talk(ctx context.Context, p Peer) error {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second},
		Config: s.id.Client(mtls.Name{Fleet: s.cfg.Fleet, Service: Service, Node: p.Node})}
	dialCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := dialer.DialContext(dialCtx, "tcp", p.Address)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	lost := make(chan error, 1)
	wg.Go(func() { lost <- s.listen(c, p.Node) })
	beat := time.NewTicker(s.cfg.Heartbeat)
	defer beat.Stop()
	for seq := uint64(1); ; seq++ {
		c.SetWriteDeadline(time.Now().Add(s.silence()))
		if _, err := c.Write(ping{seq, time.Now().UnixNano()}.frame()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-lost:
			return err
		case <-beat.C:
		}
	}
}

func (s *Set) listen(c net.Conn, node string) error {
	for {
		c.SetReadDeadline(time.Now().Add(s.silence()))
		kind, payload, err := readFrame(c)
		if err != nil {
			return err
		}
		if kind != kindPong {
			continue
		}
		p, err := parsePong(payload)
		if err != nil {
			return err
		}
		now := time.Now()
		rtt, offset := p.measure(now)
		s.heard(node, now, rtt, offset)
	}
}

func (s *Set) heard(node string, at time.Time, rtt, offset time.Duration) {
	s.mu.Lock()
	l := s.links[node]
	back := l.heard.IsZero() || l.err != nil
	l.heard, l.rtt, l.offset, l.err = at, rtt, offset, nil
	s.mu.Unlock()
	if back {
		s.log.Info("link to peer is up", "peer", node, "rtt", rtt)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
