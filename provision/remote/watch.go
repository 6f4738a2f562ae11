package remote

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Keepalive says how a half-open connection is found out. A peer that is merely busy keeps sending bytes.
type Keepalive struct {
	Every     time.Duration // default 10s
	DeadAfter time.Duration // silence after which the link is cut; default 45s
}

// link is a connection that remembers when the peer was last heard.
type link struct {
	net.Conn
	heard atomic.Int64 // unix nanoseconds

	mu  sync.Mutex
	err error // why the watcher cut the link
}

func watch(c net.Conn) *link {
	l := &link{Conn: c}
	l.heard.Store(time.Now().UnixNano())
	return l
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// keepAlive asks for a sign of life whenever the peer was silent for Every, until ctx ends or the peer is dead. At most
// one question is under way; a write that blocks on a dead peer is freed by the cut.
func (l *link) keepAlive(ctx context.Context, k Keepalive, ask func()) {
	every, deadAfter := orDefault(k.Every, 10*time.Second), orDefault(k.DeadAfter, 45*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var asking atomic.Bool
	var questions sync.WaitGroup
	defer questions.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		silent := time.Since(time.Unix(0, l.heard.Load()))
		if silent >= deadAfter {
			l.cut(fmt.Errorf("%s has been silent for %s: connection given up", l.RemoteAddr(), silent.Round(time.Second)))
			return
		}
		if silent >= every && asking.CompareAndSwap(false, true) {
			questions.Go(func() { ask(); asking.Store(false) })
		}
	}
}

func (l *link) cut(err error) {
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	l.Close()
}

func (l *link) dead() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
