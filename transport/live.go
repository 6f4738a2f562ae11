package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"popfleet/internal/control"
	"popfleet/transport/edge"
)

// At the end of the process plain requests get endRequests; streams are cut after endStreams, for their clients come
// back by themselves and every second they hold is a second in which the next process can't listen.
const (
	endRequests = 15 * time.Second
	endStreams  = time.Second
	countEvery  = 50 * time.Millisecond
)

// live is the life of the listener: serving, then on demand draining (new connections are still taken while DNS
// moves), closed (what runs may finish), drained, and back again. It returns when ctx ends and nothing runs any more.
func (s *service) live(ctx context.Context, l net.Listener) error {
	address := l.Addr().String()
	for {
		err := s.serve(ctx, l)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if !s.waitOrder(ctx, control.Serving) {
			return nil
		}
		if l, err = net.Listen("tcp", address); err != nil {
			return fmt.Errorf("listen again after a drain: %w", err)
		}
	}
}

// serve has one listener from open to closed. It returns nil when drained, when the drain was taken back after the
// listener was closed, and when ctx ended.
func (s *service) serve(ctx context.Context, l net.Listener) error {
	srv := s.edge.Server(l)
	broken := make(chan error, 1)
	go func() { broken <- srv.Serve() }()
	err := s.untilClosing(ctx, broken)
	if err != nil {
		srv.Close()
		return err
	}
	if ctx.Err() != nil {
		s.finish(srv)
	} else {
		s.drain(ctx, srv)
	}
	if err := <-broken; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("https listener: %w", err)
	}
	return nil
}

// untilClosing serves until the listener has to close: the end of ctx, or a drain whose grace is over.
func (s *service) untilClosing(ctx context.Context, broken chan error) error {
	var grace <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			s.enter(control.Draining)
			return nil
		case err := <-broken:
			return fmt.Errorf("https listener: %w", err)
		case <-grace:
			return nil
		case <-s.orders:
			switch s.ordered() {
			case control.Draining:
				if grace == nil {
					grace = time.After(time.Duration(s.cfg.Drain.Grace))
				}
			default:
				grace = nil
			}
		}
	}
}

// drain closes the listener and waits for what runs: until drain.max, when it is cut; until ctx ends, when streams are;
// or until the drain is taken back, when it may run on under the next listener.
func (s *service) drain(ctx context.Context, srv *edge.Server) {
	limit, cancel := context.WithTimeout(ctx, time.Duration(s.cfg.Drain.Max))
	defer cancel()
	back := make(chan bool, 1)
	go func() { back <- s.waitOrder(limit, control.Serving) }()
	idle := make(chan struct{})
	go func() { defer close(idle); _ = srv.Shutdown(limit); s.waitIdle(limit) }()
	defer func() { cancel(); <-idle }()
	select {
	case <-idle:
		cancel()
		if <-back {
			return
		}
	case undrained := <-back:
		if undrained {
			return
		}
	}
	if ctx.Err() != nil {
		s.finish(srv)
		return
	}
	left := s.edge.Count()
	srv.Close()
	s.drained(left)
}

// finish is the end of the process.
func (s *service) finish(srv *edge.Server) {
	limit, cancel := context.WithTimeout(context.Background(), endRequests)
	defer cancel()
	defer time.AfterFunc(endStreams, s.edge.CutStreams).Stop()
	_ = srv.Shutdown(limit) // its error is the limit, and the answer to that is Close
	s.waitIdle(limit)
	srv.Close()
}

// waitIdle waits for everything that runs, websockets too.
func (s *service) waitIdle(ctx context.Context) {
	t := time.NewTicker(countEvery)
	defer t.Stop()
	for s.edge.Count().Running() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// waitOrder waits until the state is asked for; false when ctx ended first.
func (s *service) waitOrder(ctx context.Context, state string) bool {
	for s.ordered() != state {
		select {
		case <-ctx.Done():
			return false
		case <-s.orders:
		}
	}
	return true
}
