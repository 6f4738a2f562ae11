// Package splice forwards the MongoDB wire protocol between the app and the store, message by message and unchanged. It
// reads headers only: enough to bound what passes, to count it and to know when nothing is on its way. A malformed
// message closes its own connection, with one log line, and nothing else.
package splice

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	maxClients  = 4096
	bufferBytes = 32 << 10
)

// Counters are what has passed since the start.
type Counters struct {
	Clients    int64 `json:"clients"` // connected now
	Requests   int64 `json:"requests"`
	Replies    int64 `json:"replies"`
	InFlight   int64 `json:"in_flight"` // requests without their reply
	Malformed  int64 `json:"malformed"`
	StoreFails int64 `json:"store_connect_failures"`
}

// Proxy forwards every accepted connection to one store.
type Proxy struct {
	store string
	log   *slog.Logger

	clients, requests, replies, inFlight, malformed, storeFails atomic.Int64
}

// New makes a proxy in front of the store at host:port.
func New(store string, log *slog.Logger) *Proxy { return &Proxy{store: store, log: log} }

// Counters is a snapshot.
func (p *Proxy) Counters() Counters {
	return Counters{Clients: p.clients.Load(), Requests: p.requests.Load(), Replies: p.replies.Load(), InFlight: p.inFlight.Load(),
		Malformed: p.malformed.Load(), StoreFails: p.storeFails.Load()}
}

// Serve accepts until ctx ends or the listener is closed; it returns when every connection has ended. Connections that
// are open when ctx ends are closed.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept an app's connection: %w", err)
		}
		if p.clients.Load() >= maxClients {
			p.log.Warn("connection refused", "reason", "too many clients", "limit", maxClients)
			c.Close()
			continue
		}
		p.clients.Add(1)
		wg.Go(func() {
			defer p.clients.Add(-1)
			p.handle(ctx, c)
		})
	}
}

// handle owns one client's connection and its twin to the store.
func (p *Proxy) handle(ctx context.Context, client net.Conn) {
	defer client.Close()
	store, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", p.store)
	if err != nil {
		p.storeFails.Add(1)
		p.log.Warn("store unreachable", "store", p.store, "error", err)
		return // the driver sees a closed connection and tries again, as it would with the store itself
	}
	defer store.Close()
	both := func() { client.Close(); store.Close() }
	stop := context.AfterFunc(ctx, both)
	defer stop()
	var pending atomic.Int64
	defer func() { p.inFlight.Add(-pending.Load()) }()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer both()
		p.end("app", p.pump(store, client, func(m message) { p.request(m, &pending) }))
	})
	wg.Go(func() {
		defer both()
		p.end("store", p.pump(client, store, func(m message) { p.reply(m, &pending) }))
	})
	wg.Wait()
}

func (p *Proxy) request(m message, pending *atomic.Int64) {
	p.requests.Add(1)
	if m.flags&moreToCome == 0 {
		pending.Add(1)
		p.inFlight.Add(1)
	}
}

func (p *Proxy) reply(m message, pending *atomic.Int64) {
	p.replies.Add(1)
	// An exhaust cursor answers one request many times; an unsolicited reply must not count below nothing.
	if m.flags&moreToCome == 0 && pending.Load() > 0 {
		pending.Add(-1)
		p.inFlight.Add(-1)
	}
}

// pump moves whole messages until one side ends. It writes when nothing more is waiting to be read, so that a small
// message costs one read and one write.
func (p *Proxy) pump(to io.Writer, from io.Reader, passed func(message)) error {
	in, out := bufio.NewReaderSize(from, bufferBytes), bufio.NewWriterSize(to, bufferBytes)
	var buf [headerBytes + 4]byte
	for {
		m, err := readHead(in, &buf)
		if err != nil {
			return err
		}
		passed(m)
		if _, err := out.Write(m.head); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, m.rest()); err != nil {
			return fmt.Errorf("message cut off: %w", err)
		}
		if in.Buffered() > 0 {
			continue
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

func (p *Proxy) end(side string, err error) {
	var bad *MalformedError
	if errors.As(err, &bad) {
		p.malformed.Add(1)
		p.log.Warn("connection closed", "side", side, "reason", bad.Error())
	}
}
