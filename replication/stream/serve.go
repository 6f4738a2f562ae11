package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// server is one connection on which a peer pulls.
type server struct {
	set  *Set
	peer string
	link *link
	pack *packer
	wake chan struct{} // one token: credit or subscription changed

	mu     sync.Mutex
	credit int64
	wanted *subscribe // not taken up by the writer yet
}

// answer serves one peer's connection to its end.
func (s *Set) answer(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	err := s.serve(ctx, raw)
	if err != nil && ctx.Err() == nil && (errors.Is(err, ErrFrame) || errors.Is(err, ErrPeer) || errors.Is(err, ErrVersion) || errors.Is(err, ErrRefused)) {
		s.cfg.Log.Warn("peer's connection closed", "from", raw.RemoteAddr().String(), "reason", err.Error())
	}
}

func (s *Set) serve(ctx context.Context, raw net.Conn) error {
	shake, cancel := context.WithTimeout(ctx, s.cfg.Handshake)
	defer cancel()
	c, node, err := s.transport.Accept(shake, raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	l := newLink(c, s.cfg.Silence)
	stop := context.AfterFunc(shake, func() { c.Close() })
	theirs, version, err := s.greet(l, node)
	if !stop() && !telling(err) {
		return fmt.Errorf("handshake: %w", shake.Err())
	}
	if err != nil {
		return err
	}
	pack, err := newPacker(version)
	if err != nil {
		return err
	}
	defer pack.close()
	v := &server{set: s, peer: node, link: l, pack: pack, wake: make(chan struct{}, 1)}
	s.serving(node, theirs, +1)
	defer s.serving(node, theirs, -1)
	return together(ctx, c, v.hear, v.feed, func(ctx context.Context) error { return s.beats(ctx, l, nothing) })
}

func nothing() []message { return nil }

func (s *Set) serving(node string, theirs Hello, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pairs[node].serves += n
	s.pairs[node].hello = theirs
}

// hear takes up what the puller says.
func (v *server) hear(context.Context) error {
	for {
		k, payload, err := v.link.receive()
		if err != nil {
			return err
		}
		if err := v.heard(k, payload); err != nil {
			return err
		}
	}
}

func (v *server) heard(k kind, payload []byte) error {
	switch k {
	case kindSubscribe:
		sub, err := parseSubscribe(payload)
		if err != nil {
			return err
		}
		v.change(func() { v.wanted = &sub })
	case kindCredit:
		n, err := parseCredit(payload)
		if err != nil {
			return err
		}
		v.change(func() { v.credit = min(v.credit+n, 1<<40) })
	case kindAck:
		acked, err := parseVector(payload)
		if err != nil {
			return err
		}
		v.set.acked(v.peer, acked)
	case kindHeartbeat:
		h, err := parseHeartbeat(payload)
		if err != nil {
			return err
		}
		v.link.hear(h)
	case kindRefusal:
		r, err := parseRefusal(payload)
		return orElse(err, fmt.Errorf("%w: the peer says: %s", ErrRefused, r.text))
	case kindHello, kindBatch:
		return fmt.Errorf("%w: kind %d from a puller", ErrFrame, k)
	}
	return nil
}

func (v *server) change(f func()) {
	v.mu.Lock()
	f()
	v.mu.Unlock()
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// take is whether there is credit, and the newest subscription once.
func (v *server) take() (sub *subscribe, may bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	sub, v.wanted = v.wanted, nil
	return sub, v.credit > 0
}

// feed sends what is wanted, as far as there is credit. A batch may overdraw it once, so that an entry greater than the
// window passes too.
func (v *server) feed(ctx context.Context) error {
	f := newFeed(v.set.source)
	for {
		changed := v.set.source.Changed()
		sub, may := v.take()
		if sub != nil {
			f.subscribe(*sub)
		}
		sent := false
		if may {
			var err error
			if sent, err = v.sendNext(f); err != nil {
				return err
			}
		}
		if sent {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.wake:
		case <-changed:
		}
	}
}

func (v *server) sendNext(f *feed) (sent bool, err error) {
	entries, refused, err := f.next(v.set.cfg.BatchBytes)
	if err != nil {
		return false, err
	}
	for _, r := range refused {
		v.set.cfg.Log.Warn("origin can't be served", "peer", v.peer, "origin", r.origin, "reason", r.text)
		if err := v.link.send(message{kindRefusal, r.encode()}); err != nil {
			return false, err
		}
	}
	if len(entries) == 0 {
		return false, nil
	}
	payload, cost, err := v.pack.pack(entries)
	if err != nil {
		return false, err
	}
	v.mu.Lock()
	v.credit -= cost
	v.mu.Unlock()
	return true, v.link.send(message{kindBatch, payload})
}

func (s *Set) acked(peer string, acked map[uint8]uint64) {
	s.mu.Lock()
	v := s.pairs[peer].acked
	v.Merge(acked)
	v = v.Clone()
	s.mu.Unlock()
	s.observer.Acked(peer, v)
}
