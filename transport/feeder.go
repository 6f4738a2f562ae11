package transport

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"popfleet/dns/feed"
)

const (
	feedEvery     = 5 * time.Second
	feedRetry     = time.Second
	feedTimeout   = 2 * time.Second
	feedFirstWait = 3 * time.Second
)

// feeder writes the live map to the local dns.
type feeder struct {
	path      string
	log       *slog.Logger
	nodes     func() (nodes []feed.Node, complete bool)
	from      string
	changed   chan struct{} // one waiting signal is enough: the newest map is sent
	connected atomic.Bool
	version   uint64
}

// run feeds until ctx ends. In its first seconds it keeps still until every peer was heard: a transport that has just
// started knows nobody, and must not say that everybody is dead.
func (f *feeder) run(ctx context.Context) {
	f.settle(ctx)
	for ctx.Err() == nil {
		err := f.feed(ctx)
		f.connected.Store(false)
		if ctx.Err() != nil {
			return
		}
		f.log.Debug("dns feed interrupted", "error", err)
		pause(ctx, feedRetry)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (f *feeder) settle(ctx context.Context) {
	limit := time.After(feedFirstWait)
	for {
		if _, complete := f.nodes(); complete {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-limit:
			return
		case <-f.changed:
		}
	}
}

// feed holds one connection.
func (f *feeder) feed(ctx context.Context) error {
	d := net.Dialer{Timeout: feedTimeout}
	c, err := d.DialContext(ctx, "unix", f.path)
	if err != nil {
		return err
	}
	defer c.Close()
	f.connected.Store(true)
	f.log.Info("feeding dns", "socket", f.path)
	gone := make(chan struct{}) // dns never writes: a read that ends means it left, and the next one wants the map soon
	go func() { defer close(gone); _, _ = io.Copy(io.Discard, c) }()
	defer func() { c.Close(); <-gone }()
	t := time.NewTicker(feedEvery)
	defer t.Stop()
	for {
		if err := f.send(c); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return f.send(c) // the state we leave in
		case <-gone:
			return io.EOF
		case <-f.changed:
		case <-t.C:
		}
	}
}

func (f *feeder) send(c net.Conn) error {
	nodes, _ := f.nodes()
	f.version++
	line, err := feed.Encode(feed.Map{V: 1, From: f.from, Version: f.version, Time: time.Now().UTC(), Nodes: nodes})
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(feedTimeout)); err != nil {
		return err
	}
	if _, err := c.Write(line); err != nil {
		return fmt.Errorf("feed %s: %w", f.path, err)
	}
	return nil
}
