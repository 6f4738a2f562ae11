package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popfleet/replication/oplog"
)

// network is connections in memory that can be cut, or swallow what is sent.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	cut       map[[2]string]bool // dialer, listener
	swallow   map[[2]string]bool // sender, receiver
	conns     []*conn
}

func newNetwork() *network {
	return &network{listeners: map[string]*listener{}, cut: map[[2]string]bool{}, swallow: map[[2]string]bool{}}
}

type conn struct {
	net.Conn
	network  *network
	from, to string
	lost     bool // something was swallowed: TLS would let nothing behind it pass
}

func (c *conn) Write(b []byte) (int, error) {
	c.network.mu.Lock()
	c.lost = c.lost || c.network.swallow[[2]string{c.from, c.to}]
	gone := c.lost
	c.network.mu.Unlock()
	if gone {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

type listener struct {
	incoming chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

func (n *network) listen(node string) *listener {
	l := &listener{incoming: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[node] = l
	return l
}

// transport is one node's end. It proves names as MTLS does: by construction.
type transport struct {
	network *network
	self    string
}

func (t transport) Dial(ctx context.Context, p Peer) (net.Conn, error) {
	t.network.mu.Lock()
	l, cut := t.network.listeners[p.Node], t.network.cut[[2]string{t.self, p.Node}]
	t.network.mu.Unlock()
	if l == nil || cut {
		return nil, errors.New("no route")
	}
	a, b := net.Pipe()
	mine, theirs := &conn{Conn: a, network: t.network, from: t.self, to: p.Node}, &conn{Conn: b, network: t.network, from: p.Node, to: t.self}
	select {
	case l.incoming <- theirs:
	case <-l.closed:
		return nil, errors.New("refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.network.conns = append(t.network.conns, mine)
	return mine, nil
}

func (t transport) Accept(_ context.Context, c net.Conn) (net.Conn, string, error) {
	return c, c.(*conn).to, nil
}

// set cuts or mends what a dials at b.
func (n *network) set(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}] = cut
	for _, c := range n.conns {
		if cut && c.from == a && c.to == b {
			c.Close()
		}
	}
}

func (n *network) lose(from, to string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.swallow[[2]string{from, to}] = on
}

// store is a log and a sink in memory that only takes what comes without a hole.
type store struct {
	mu      sync.Mutex
	logs    map[uint8][]oplog.Entry
	floor   map[uint8]uint64
	changed chan struct{}
	twice   int           // entries that came again
	gate    chan struct{} // not nil: Apply waits for it
	took    map[string]int
}

func newStore() *store {
	return &store{logs: map[uint8][]oplog.Entry{}, floor: map[uint8]uint64{}, changed: make(chan struct{}), took: map[string]int{}}
}

func (s *store) Vector() oplog.Vector {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := oplog.Vector{}
	for o, l := range s.logs {
		v[o] = uint64(len(l))
	}
	return v
}

func (s *store) Durable() oplog.Vector { return s.Vector() }

func (s *store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *store) Read(origin uint8, from uint64, maxBytes int) (all []oplog.Entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from <= s.floor[origin] {
		return nil, &oplog.TruncatedError{Origin: origin, Floor: s.floor[origin]}
	}
	for _, e := range s.logs[origin][from-1:] {
		if maxBytes <= 0 {
			break
		}
		all, maxBytes = append(all, e), maxBytes-len(e.Payload)
	}
	return all, nil
}

func (s *store) Apply(ctx context.Context, from string, entries []oplog.Entry) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.add(from, entries...)
}

func (s *store) add(from string, entries ...oplog.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		have := uint64(len(s.logs[e.Origin]))
		switch {
		case e.Seq <= have:
			s.twice++
		case e.Seq == have+1:
			s.logs[e.Origin] = append(s.logs[e.Origin], e)
			s.took[from]++
		default:
			return fmt.Errorf("entry %d of origin %d after %d", e.Seq, e.Origin, have)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// write issues n entries of the node's own.
func (s *store) write(origin uint8, n int) {
	from := s.Vector()[origin]
	_ = s.add("", entries(origin, from+1, from+uint64(n))...)
}

// node is one member of a test's cluster.
type node struct {
	*store
	set  *Set
	stop func()

	mu     sync.Mutex
	acked  map[string]oplog.Vector
	heard  map[string]Heartbeat
	fenced []string
}

func (n *node) Heard(from string, _ uint8, h Heartbeat) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard[from] = h
}

func (n *node) Acked(peer string, v oplog.Vector) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.acked[peer] = v
}

func (n *node) Fenced(peer string, origin uint8, upTo uint64, _ string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fenced = append(n.fenced, fmt.Sprintf("%s cannot serve %d up to %d", peer, origin, upTo))
}

func (n *node) ackedBy(peer string) oplog.Vector {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.acked[peer]
}

var names = []string{"a", "b", "c", "d"}

// cluster starts nodes named a, b, … with origins 1, 2, …, all peers of each other.
func cluster(t *testing.T, net *network, count int, change func(i int, c *Config)) []*node {
	var nodes []*node
	for i := range count {
		nodes = append(nodes, start(t, net, i, count, change))
	}
	return nodes
}

func start(t *testing.T, net *network, i, count int, change func(i int, c *Config)) *node {
	c := Config{Node: names[i], PoP: "p", Origin: uint8(i + 1), Log: slog.New(slog.DiscardHandler),
		Pulse: func() Pulse { return Pulse{HLC: time.Now().UnixMilli(), Low: 7} }}
	for j := range count {
		if j != i {
			c.Peers = append(c.Peers, Peer{Node: names[j], Origin: uint8(j + 1)})
		}
	}
	if change != nil {
		change(i, &c)
	}
	n := &node{store: newStore(), acked: map[string]oplog.Vector{}, heard: map[string]Heartbeat{}}
	n.set = New(c, transport{net, names[i]}, n.store, n.store, n)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	l := net.listen(names[i])
	go func() { done <- n.set.Run(ctx, l) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node %s ended with %v", names[i], err)
		}
	})
	return n
}

func stop(nodes []*node) {
	for _, n := range nodes {
		n.stop()
	}
}

// within waits, on the bubble's clock, until the condition holds.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		synctest.Wait()
		if holds() {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond) // the bubble's clock
	}
}

func same(nodes []*node, want oplog.Vector) func() bool {
	return func() bool {
		for _, n := range nodes {
			if v := n.Vector(); !v.Covers(want) || !want.Covers(v) {
				return false
			}
		}
		return true
	}
}
