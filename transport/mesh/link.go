package mesh

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"crypto/tls"

	"golang.org/x/net/netutil"
)

// maxInbound bounds half-open and foreign connections; every peer needs one.
const maxInbound = 256

// link is one open stream to a peer.
type link struct {
	conn   *tls.Conn
	dialed bool
	now    chan struct{} // asks for a heartbeat ahead of time

	mu sync.Mutex
	// guarded by mu
	echo   uint64 // SentUS of the last beat received on this stream
	echoAt time.Time
}

// keepDialing holds the outgoing stream to one peer, with growing jittered pauses between attempts.
func (m *Mesh) keepDialing(ctx context.Context, p *peer) {
	pause := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := m.dialOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		p.note(err)
		m.cfg.Log.Debug("mesh stream ended", "peer", p.Node, "error", err)
		if time.Since(began) > lastRetry { // it had held
			pause = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, lastRetry)
	}
}

func (p *peer) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problem = ""
	if err != nil {
		p.problem = err.Error()
	}
}

func (m *Mesh) dialOnce(ctx context.Context, p *peer) error {
	d := net.Dialer{Timeout: dialTimeout}
	raw, err := d.DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, m.clientTLS(p.Node))
	if err := shake(ctx, conn); err != nil {
		return fmt.Errorf("handshake with %s: %w", p.Address, err)
	}
	p.note(nil)
	return m.run(ctx, p, &link{conn: conn, dialed: true, now: make(chan struct{}, 1)})
}

// shake ends the handshake or closes the connection.
func shake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != protocol {
		err = fmt.Errorf("peer does not speak %s", protocol)
	}
	if err != nil {
		conn.Close()
	}
	return err
}

func (m *Mesh) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	l = netutil.LimitListener(l, maxInbound)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	for {
		raw, err := l.Accept()
		if ctx.Err() != nil {
			if raw != nil {
				raw.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("mesh listener: %w", err)
		}
		running.Go(func() { m.serve(ctx, raw) })
	}
}

func (m *Mesh) serve(ctx context.Context, raw net.Conn) {
	conn := tls.Server(raw, m.serverTLS())
	if err := shake(ctx, conn); err != nil {
		m.cfg.Log.Warn("mesh connection refused", "remote", raw.RemoteAddr().String(), "error", err)
		return
	}
	name, err := m.identify(conn.ConnectionState())
	p := m.peers[name]
	if err != nil || p == nil { // verified in the handshake already; a changed peer list would land here
		conn.Close()
		return
	}
	err = m.run(ctx, p, &link{conn: conn, now: make(chan struct{}, 1)})
	m.cfg.Log.Debug("mesh stream ended", "peer", name, "error", err)
}

// run speaks on the stream until it breaks or ctx ends. It closes the stream, and waits for its reader.
func (m *Mesh) run(ctx context.Context, p *peer, k *link) error {
	p.attach(k)
	defer p.detach(k)
	readErr := make(chan error, 1)
	go func() { readErr <- m.read(p, k) }()
	err := m.write(ctx, k, readErr)
	k.conn.NetConn().Close() // not a TLS goodbye: it would wait for a peer that no longer reads
	if err == nil {
		return <-readErr
	}
	<-readErr
	return err
}

// attach makes k the stream of its direction; the one before is stale and closed.
func (p *peer) attach(k *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for old := range p.links {
		if old.dialed == k.dialed {
			old.conn.NetConn().Close()
		}
	}
	p.links[k] = true
}

func (p *peer) detach(k *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, k)
}

// write sends heartbeats until the reader ends (nil: its error counts), a write fails, or ctx ends. At the end of ctx
// one last heartbeat tells the state the node leaves in; readErr keeps its value for the caller.
func (m *Mesh) write(ctx context.Context, k *link, readErr chan error) error {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		if err := m.send(k); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return m.send(k)
		case err := <-readErr:
			readErr <- err
			return nil
		case <-k.now:
		case <-t.C:
		}
	}
}

func (m *Mesh) send(k *link) error {
	b := m.cfg.Self()
	b.Node, b.Epoch, b.Seq = m.cfg.Node, m.epoch, m.seq.Add(1)
	b.Echo = k.takeEcho()
	b.SentUS = m.clock()
	payload, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode heartbeat: %w", err)
	}
	if err := k.conn.SetWriteDeadline(time.Now().Add(deadAfter)); err != nil {
		return err
	}
	return writeFrame(k.conn, frameBeat, payload)
}

// clock is microseconds on a clock of our own that never jumps.
func (m *Mesh) clock() uint64 { return uint64(time.Since(m.began).Microseconds()) }

func (k *link) takeEcho() *Echo {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.echoAt.IsZero() {
		return nil
	}
	return &Echo{SentUS: k.echo, HeldUS: uint64(time.Since(k.echoAt).Microseconds())}
}

func (m *Mesh) read(p *peer, k *link) error {
	r := bufio.NewReader(k.conn)
	var buf []byte
	for {
		if err := k.conn.SetReadDeadline(time.Now().Add(deadAfter)); err != nil {
			return err
		}
		kind, payload, err := readFrame(r, buf)
		if err != nil {
			return err
		}
		buf = payload
		if kind != frameBeat {
			continue // a newer peer says more than we understand
		}
		b, err := decodeBeat(payload)
		if err != nil {
			return err
		}
		if b.Node != p.Node {
			return fmt.Errorf("%w: %q speaks with the certificate of %q", errFrame, b.Node, p.Node)
		}
		m.hear(p, b, m.roundTrip(b.Echo))
		k.mu.Lock()
		k.echo, k.echoAt = b.SentUS, time.Now()
		k.mu.Unlock()
	}
}

// roundTrip is 0 when the echo is missing or makes no sense.
func (m *Mesh) roundTrip(e *Echo) time.Duration {
	if e == nil {
		return 0
	}
	now := m.clock()
	if e.SentUS > now || e.HeldUS > now-e.SentUS {
		return 0
	}
	return time.Duration(now-e.SentUS-e.HeldUS) * time.Microsecond
}
