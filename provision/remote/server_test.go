package remote

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wire is one direction of a connection that delivers bytes after a delay.
type wire struct {
	chunks chan chunk
	rest   []byte
}

type chunk struct {
	at   time.Time
	data []byte
}

type delayed struct {
	in, out *wire
	delay   time.Duration
	done    chan struct{}
	end     *sync.Once
	silent  *atomic.Bool // bytes vanish: a half-open connection
}

func pipe(delay time.Duration) (client, server *delayed) {
	a, b := &wire{chunks: make(chan chunk, 4096)}, &wire{chunks: make(chan chunk, 4096)}
	done, end, silent := make(chan struct{}), new(sync.Once), new(atomic.Bool)
	return &delayed{a, b, delay, done, end, silent}, &delayed{b, a, delay, done, end, silent}
}

func (c *delayed) Read(p []byte) (int, error) {
	if len(c.in.rest) == 0 {
		select {
		case k := <-c.in.chunks:
			time.Sleep(time.Until(k.at))
			c.in.rest = k.data
		case <-c.done:
			return 0, io.EOF
		}
	}
	n := copy(p, c.in.rest)
	c.in.rest = c.in.rest[n:]
	return n, nil
}

func (c *delayed) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	select {
	case c.out.chunks <- chunk{time.Now().Add(c.delay), append([]byte(nil), p...)}:
		return len(p), nil
	case <-c.done:
		return 0, io.ErrClosedPipe
	}
}

func (c *delayed) Close() error                     { c.end.Do(func() { close(c.done) }); return nil }
func (c *delayed) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *delayed) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 22} }
func (c *delayed) SetDeadline(time.Time) error      { return nil }
func (c *delayed) SetReadDeadline(time.Time) error  { return nil }
func (c *delayed) SetWriteDeadline(time.Time) error { return nil }

// server is an SSH server that runs one function for every exec.
type server struct {
	host   ssh.Signer
	client ssh.PublicKey
	run    func(command string, ch ssh.Channel) (status uint32)
	delay  time.Duration

	logins atomic.Int32
	auths  atomic.Int32 // any authentication request, of any method
	silent atomic.Pointer[atomic.Bool]
	wg     sync.WaitGroup
}

func (s *server) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	time.Sleep(2 * s.delay) // the TCP handshake
	c, peer := pipe(s.delay)
	s.silent.Store(c.silent)
	s.wg.Go(func() { s.serve(peer) })
	return c, nil
}

func (s *server) serve(raw net.Conn) {
	defer raw.Close()
	cfg := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			s.auths.Add(1)
			if !SameKey(k, s.client) {
				return nil, io.EOF
			}
			return nil, nil
		},
		AuthLogCallback: func(ssh.ConnMetadata, string, error) { s.auths.Add(1) },
	}
	cfg.AddHostKey(s.host)
	conn, chans, reqs, err := ssh.NewServerConn(raw, cfg)
	if err != nil {
		return
	}
	s.logins.Add(1)
	s.wg.Go(func() { ssh.DiscardRequests(reqs) })
	for nc := range chans {
		ch, chReqs, err := nc.Accept()
		if err != nil {
			continue
		}
		s.wg.Go(func() { s.session(ch, chReqs) })
	}
	conn.Wait()
}

func (s *server) session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	for r := range reqs {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		var p struct{ Command string }
		_ = ssh.Unmarshal(r.Payload, &p)
		_ = r.Reply(true, nil)
		s.wg.Go(func() {
			status := s.run(p.Command, ch)
			if status != noExit {
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			}
			ch.Close()
		})
	}
}

const noExit = 1 << 31
