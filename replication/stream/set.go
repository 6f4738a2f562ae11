package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"popfleet/replication/oplog"
)

var (
	// ErrVersion is a peer that speaks no version of this node's.
	ErrVersion = errors.New("no common version")
	// ErrRefused is a peer that does not let this node in, or is not let in.
	ErrRefused = errors.New("refused")
	// ErrPeer is a peer that is not who it should be.
	ErrPeer = errors.New("not the expected peer")
)

// Sink takes what peers send.
type Sink interface {
	// Apply is called for each batch, from one goroutine a peer, for several peers at once. When it returns nil the
	// entries are the sink's: applied, or parked until their causes come. It may block: the peer then waits. An error
	// ends the connection; the entries come again.
	Apply(ctx context.Context, from string, entries []oplog.Entry) error
	// Durable is how far each origin's entries are applied and on disk.
	Durable() oplog.Vector
}

// Observer hears of what links say. Its methods must not block.
type Observer interface {
	// Heard is a peer's heartbeat.
	Heard(from string, origin uint8, h Heartbeat)
	// Acked is a peer that has everything up to v on disk.
	Acked(peer string, v oplog.Vector)
	// Fenced is a peer that can't serve an origin after what this node has: truncated (this node has to be seeded again
	// unless another peer has them) or damaged.
	Fenced(peer string, origin uint8, upTo uint64, why string)
}

// Transport makes connections whose other side is proven. MTLS is the one for nodes.
type Transport interface {
	// Dial connects to p and proves that it is p.
	Dial(ctx context.Context, p Peer) (net.Conn, error)
	// Accept finishes the handshake on c and returns who the other side proved to be.
	Accept(ctx context.Context, c net.Conn) (net.Conn, string, error)
}

// Peer is another node.
type Peer struct {
	Node    string
	Address string
	Origin  uint8
}

// Pulse is what this node says of itself in heartbeats.
type Pulse struct {
	HLC     int64
	Through uint64
	Low     int64
}

// Config is a node's links. Zero durations and sizes mean the defaults.
type Config struct {
	Node, PoP string
	Origin    uint8
	Peers     []Peer
	Epoch     func() uint64
	Pulse     func() Pulse
	Admit     func(Hello) error // may refuse a peer, on both ends; nil: all whose name fits
	Log       *slog.Logger

	Window     int64         // bytes on their way from one peer; default 4 MiB
	BatchBytes int           // default 256 KiB
	Heartbeat  time.Duration // default 1s
	Silence    time.Duration // default 6s
	Stall      time.Duration // without progress of an origin that another peer has; default 2s
	Handshake  time.Duration // from dialing to the other side's hello; default 3s
	MaxPause   time.Duration // between dials; default 1s: after a partition, everybody has everything soon

	min, max byte // versions; tests speak older ones
}

func (c Config) withDefaults() Config {
	c.Window, c.BatchBytes = or(c.Window, 4<<20), or(c.BatchBytes, 256<<10)
	c.Heartbeat = or(c.Heartbeat, time.Second)
	c.Silence, c.Stall = or(c.Silence, 6*c.Heartbeat), or(c.Stall, 2*c.Heartbeat)
	c.Handshake, c.MaxPause = or(c.Handshake, 3*time.Second), or(c.MaxPause, time.Second)
	c.min, c.max = or(c.min, MinVersion), or(c.max, Version)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Epoch == nil {
		c.Epoch = func() uint64 { return 0 }
	}
	if c.Pulse == nil {
		c.Pulse = func() Pulse { return Pulse{} }
	}
	if c.Admit == nil {
		c.Admit = func(Hello) error { return nil }
	}
	return c
}

func or[T byte | int | int64 | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Set is one node's links to all its peers. New makes it, Run runs it.
type Set struct {
	cfg       Config
	transport Transport
	source    Source
	sink      Sink
	observer  Observer
	plan      *plan

	mu    sync.Mutex
	pairs map[string]*pair
}

// pair is what is known of one peer.
type pair struct {
	peer   Peer
	pull   *puller // nil: not connected
	err    error   // why not
	serves int     // connections it pulls on
	acked  oplog.Vector
	hello  Hello
}

// New makes the links of a node.
func New(c Config, t Transport, source Source, sink Sink, o Observer) *Set {
	s := &Set{cfg: c.withDefaults(), transport: t, source: source, sink: sink, observer: o, pairs: map[string]*pair{}}
	for _, p := range c.Peers {
		s.pairs[p.Node] = &pair{peer: p, acked: oplog.Vector{}}
	}
	s.plan = newPlan(s.cfg.Origin, c.Peers, s.cfg.Stall)
	return s
}

// Run serves peers on l and pulls from each until ctx ends; it returns when nothing of it runs any more.
func (s *Set) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, p := range s.cfg.Peers {
		wg.Go(func() { s.keep(ctx, p) })
	}
	wg.Go(func() { s.replans(ctx) })
	return s.accept(ctx, l, &wg, cancel)
}

func (s *Set) accept(ctx context.Context, l net.Listener, wg *sync.WaitGroup, cancel func()) error {
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept a peer's connection: %w", err)
		}
		wg.Go(func() { s.answer(ctx, c) })
	}
}

// keep pulls from one peer again and again.
func (s *Set) keep(ctx context.Context, p Peer) {
	const shortest = 200 * time.Millisecond
	pause := shortest
	for ctx.Err() == nil {
		progress, err := s.pullFrom(ctx, p)
		if ctx.Err() != nil {
			return
		}
		s.lost(p.Node, err)
		if progress {
			pause = shortest
		}
		wait(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, s.cfg.MaxPause)
	}
}

func (s *Set) lost(node string, err error) {
	s.mu.Lock()
	p := s.pairs[node]
	news := p.err == nil || p.err.Error() != err.Error()
	p.err = err
	s.mu.Unlock()
	if news {
		s.cfg.Log.Warn("stream from peer lost", "peer", node, "error", err)
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

func (s *Set) hello() Hello {
	return Hello{Min: s.cfg.min, Max: s.cfg.max, Origin: s.cfg.Origin, Epoch: s.cfg.Epoch(), Node: s.cfg.Node, PoP: s.cfg.PoP,
		Vector: s.source.Vector()}
}

func (s *Set) heartbeat() Heartbeat {
	p := s.cfg.Pulse() // before the vector: what it promises is in the log by then
	return Heartbeat{HLC: p.HLC, Through: p.Through, Low: p.Low, Vector: s.source.Vector()}
}

// beats sends a heartbeat, and what is to go with it, at once and then each interval, until ctx ends or the link does.
func (s *Set) beats(ctx context.Context, l *link, also func() []message) error {
	tick := time.NewTicker(s.cfg.Heartbeat)
	defer tick.Stop()
	for {
		if err := l.send(append(also(), l.beat(s.heartbeat()))...); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lastWords is how long a connection whose writes fail is read on: the other side may have said why it ended it.
const lastWords = 200 * time.Millisecond

// together runs the parts of a connection until one of them ends, which closes the connection and so ends the others. Of
// their errors it returns the most telling.
func together(ctx context.Context, c net.Conn, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(ctx) }()
	}
	err, left := <-ended, len(parts)-1
	if !telling(err) {
		timer := time.NewTimer(lastWords)
		defer timer.Stop()
		select {
		case next := <-ended:
			left--
			err = moreTelling(err, next)
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	cancel()
	c.Close()
	for range left {
		err = moreTelling(err, <-ended)
	}
	return err
}

func telling(err error) bool {
	return errors.Is(err, ErrFrame) || errors.Is(err, ErrRefused) || errors.Is(err, ErrVersion) || errors.Is(err, ErrPeer)
}

func moreTelling(err, next error) error {
	if !telling(err) && telling(next) {
		return next
	}
	return err
}

// greet exchanges hellos and settles the version, or tells the other side why not.
func (s *Set) greet(l *link, expected string) (Hello, byte, error) {
	own := s.hello()
	sent := make(chan error, 1)
	go func() { sent <- l.send(message{kindHello, own.encode()}) }() // both speak first: neither waits for the other
	theirs, err := s.heardHello(l)
	if e := <-sent; err == nil {
		err = e
	}
	if err != nil {
		return theirs, 0, err
	}
	version, code, err := s.judge(own, theirs, expected)
	if err != nil {
		_ = l.send(message{kindRefusal, refusal{code: code, text: err.Error()}.encode()}) // the connection ends either way
		return theirs, 0, err
	}
	return theirs, version, nil
}

func (s *Set) heardHello(l *link) (Hello, error) {
	k, payload, err := l.receive()
	switch {
	case err != nil:
		return Hello{}, fmt.Errorf("hello: %w", err)
	case k != kindHello:
		return Hello{}, fmt.Errorf("%w: kind %d before hello", ErrFrame, k)
	}
	return parseHello(payload)
}

func (s *Set) judge(own, theirs Hello, expected string) (version byte, code byte, err error) {
	if p := s.pairs[expected]; theirs.Node != expected || p == nil || p.peer.Origin != theirs.Origin {
		return 0, refusedAdmission, fmt.Errorf("%w: it says node %q, origin %d; expected %q", ErrPeer, theirs.Node, theirs.Origin, expected)
	}
	if version, err = agree(own, theirs); err != nil {
		return 0, refusedVersion, err
	}
	if err := s.cfg.Admit(theirs); err != nil {
		return 0, refusedAdmission, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return version, 0, nil
}
