package stream

import (
	"context"
	"fmt"
	"sync"
	"time"

	"popfleet/replication/oplog"
)

// puller is one connection on which this node pulls.
type puller struct {
	set     *Set
	peer    Peer
	link    *link
	pack    *packer
	version byte
	queue   chan received // as many as the window may hold
	applied bool          // read once the connection has ended

	wake chan struct{} // one token: wants is set

	mu     sync.Mutex
	credit int64 // granted, not used up
	vector oplog.Vector
	wants  *subscribe // not sent yet
}

type received struct {
	entries []oplog.Entry
	cost    int64
}

// pullFrom holds one connection. progress is whether something was applied.
func (s *Set) pullFrom(ctx context.Context, p Peer) (progress bool, err error) {
	shake, cancel := context.WithTimeout(ctx, s.cfg.Handshake)
	defer cancel()
	c, err := s.transport.Dial(shake, p)
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(shake, func() { c.Close() })
	l := newLink(c, s.cfg.Silence)
	theirs, version, err := s.greet(l, p.Node)
	if !stop() && !telling(err) {
		return false, fmt.Errorf("handshake: %w", shake.Err())
	}
	if err != nil {
		return false, err
	}
	pack, err := newPacker(version)
	if err != nil {
		return false, err
	}
	defer pack.close()
	v := &puller{set: s, peer: p, link: l, pack: pack, version: version, vector: theirs.Vector, credit: s.cfg.Window,
		queue: make(chan received, s.cfg.Window/batchCost+1), wake: make(chan struct{}, 1)}
	s.connected(v, theirs)
	defer s.disconnected(v)
	err = together(ctx, c, v.hear, v.apply, v.subscribe, func(ctx context.Context) error { return s.beats(ctx, l, v.ack) })
	return v.applied, err
}

func (s *Set) connected(v *puller, theirs Hello) {
	s.mu.Lock()
	p := s.pairs[v.peer.Node]
	p.pull, p.err, p.hello = v, nil, theirs
	s.mu.Unlock()
	s.plan.joined(v.peer.Node, v, theirs.Vector)
	s.replan()
}

func (s *Set) disconnected(v *puller) {
	s.mu.Lock()
	s.pairs[v.peer.Node].pull = nil
	s.mu.Unlock()
	s.plan.left(v.peer.Node)
	s.replan()
}

// replan settles anew who is asked for what.
func (s *Set) replan() { s.plan.decide(s.sink.Durable(), time.Now()) }

// replans looks each heartbeat whether an origin has stalled, or a new one has come up.
func (s *Set) replans(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.replan()
		}
	}
}

// want is what the plan asks of this connection from now on.
func (v *puller) want(s subscribe) {
	v.mu.Lock()
	v.wants = &s
	v.mu.Unlock()
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// subscribe opens the window and sends what the plan wants.
func (v *puller) subscribe(ctx context.Context) error {
	if err := v.grant(v.set.cfg.Window); err != nil { // its credit is counted from the start
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.wake:
		}
		v.mu.Lock()
		wants := v.wants
		v.wants = nil
		v.mu.Unlock()
		if wants == nil {
			continue
		}
		if err := v.link.send(message{kindSubscribe, wants.encode()}); err != nil {
			return err
		}
	}
}

// ack tells the peer how far this node is.
func (v *puller) ack() []message {
	return []message{{kindAck, oplog.AppendVector(nil, v.set.sink.Durable())}}
}

// grant lets the peer send n bytes more, and tells it how far this node is.
func (v *puller) grant(n int64) error {
	return v.link.send(append(v.ack(), message{kindCredit, encodeCredit(uint64(n))})...)
}

func (v *puller) hear(ctx context.Context) error {
	for {
		k, payload, err := v.link.receive()
		if err != nil {
			return err
		}
		switch k {
		case kindBatch:
			err = v.batch(ctx, payload)
		case kindHeartbeat:
			err = v.heartbeat(payload)
		case kindRefusal:
			err = v.refused(payload)
		case kindHello, kindSubscribe, kindAck, kindCredit:
			err = fmt.Errorf("%w: kind %d from a server", ErrFrame, k)
		}
		if err != nil {
			return err
		}
	}
}

// batch queues what came. The peer keeps to its credit, so the queue never holds more than the window and one batch.
func (v *puller) batch(ctx context.Context, payload []byte) error {
	v.mu.Lock()
	credit := v.credit
	v.mu.Unlock()
	if credit <= 0 {
		return fmt.Errorf("%w: a batch beyond the credit", ErrFrame)
	}
	entries, cost, err := v.pack.unpack(payload)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.credit -= cost
	v.mu.Unlock()
	select {
	case v.queue <- received{entries, cost}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *puller) heartbeat(payload []byte) error {
	h, err := parseHeartbeat(payload)
	if err != nil {
		return err
	}
	v.link.hear(h)
	v.mu.Lock()
	v.vector = h.Vector
	v.mu.Unlock()
	v.set.plan.heard(v.peer.Node, h.Vector)
	v.set.observer.Heard(v.peer.Node, v.peer.Origin, h)
	return nil
}

// refused takes up what the peer can't do. An origin it can't serve is asked of others.
func (v *puller) refused(payload []byte) error {
	r, err := parseRefusal(payload)
	if err != nil {
		return err
	}
	switch r.code {
	case refusedVersion:
		return fmt.Errorf("%w: the peer says: %s", ErrVersion, r.text)
	case refusedAdmission:
		return fmt.Errorf("%w: the peer says: %s", ErrRefused, r.text)
	}
	v.set.plan.cannot(v.peer.Node, r.origin, time.Now())
	v.set.observer.Fenced(v.peer.Node, r.origin, r.seq, r.text)
	v.set.replan()
	return nil
}

// apply hands batches to the sink, in their order, and lets the peer send as much again.
func (v *puller) apply(ctx context.Context) error {
	for {
		var next received
		select {
		case <-ctx.Done():
			return ctx.Err()
		case next = <-v.queue:
		}
		if err := v.set.sink.Apply(ctx, v.peer.Node, next.entries); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		v.applied = true
		v.mu.Lock()
		v.credit += next.cost // before the peer hears of it
		v.mu.Unlock()
		if err := v.grant(next.cost); err != nil {
			return err
		}
	}
}
