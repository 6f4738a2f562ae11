package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/dns/feed"
	"popfleet/transport/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

type keys struct {
	leaf  *tls.Certificate
	roots *x509.CertPool
}

func (k keys) Certificate() *tls.Certificate { return k.leaf }
func (k keys) Roots() *x509.CertPool         { return k.roots }

// node is a mesh under test.
type node struct {
	*Mesh
	state   atomic.Value
	changed chan struct{}
	stop    func()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run starts a mesh on l that dials the peers; stop may be called early.
func run(t *testing.T, name string, k keys, l net.Listener, peers ...Peer) *node {
	n := &node{changed: make(chan struct{}, 64)}
	n.state.Store(feed.Serving)
	n.Mesh = New(Config{Fleet: "demo", Node: name, Peers: peers, Keys: k, Log: slog.New(slog.DiscardHandler),
		Self: func() Beat {
			return Beat{PoP: "fsn", State: n.state.Load().(string), AppOK: true, Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.10")}}
		},
		Changed: func() {
			select {
			case n.changed <- struct{}{}:
			default:
			}
		}})
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := n.Run(ctx, l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	n.stop = func() { cancel(); done.Wait() }
	t.Cleanup(n.stop)
	return n
}

// until waits for the peer to be in the state, and returns how long that took.
func (n *node) until(t *testing.T, peer, state string) time.Duration {
	t.Helper()
	began := time.Now()
	end := time.After(patience)
	for {
		for _, s := range n.Status() {
			if s.Node == peer && s.State == state {
				return time.Since(began)
			}
		}
		select {
		case <-n.changed:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			t.Fatalf("%s: %s never became %s: %+v", n.cfg.Node, peer, state, n.Status())
		}
	}
}

func uri(name string) string { return "popfleet://demo/transport/" + name }

func peerAt(name string, a net.Addr) Peer { return Peer{Node: name, PoP: "fsn", Address: a.String()} }

func TestThreeNodesSeeEachOther(t *testing.T) {
	ca := certtest.NewCA(t)
	listeners, nodes := map[string]net.Listener{}, map[string]*node{}
	names := []string{"fsn-1", "fsn-2", "gra-1"}
	for _, name := range names {
		listeners[name] = listen(t)
	}
	for _, name := range names {
		var peers []Peer
		for _, other := range names {
			if other != name {
				peers = append(peers, peerAt(other, listeners[other].Addr()))
			}
		}
		nodes[name] = run(t, name, keys{ca.Leaf(t, uri(name)), ca.Pool()}, listeners[name], peers...)
	}
	for _, n := range nodes {
		for _, p := range n.cfg.Peers {
			n.until(t, p.Node, feed.Serving)
		}
		if !n.AllHeard() {
			t.Error("not all heard")
		}
	}

	nodes["fsn-2"].state.Store(feed.Draining)
	nodes["fsn-2"].Announce()
	if took := nodes["gra-1"].until(t, "fsn-2", feed.Draining); took > time.Second {
		t.Errorf("draining was known after %v", took)
	}

	nodes["fsn-2"].stop()
	took := nodes["fsn-1"].until(t, "fsn-2", feed.Dead)
	t.Logf("stopped peer dead after %v", took)
	if took > 3*time.Second {
		t.Errorf("stopped peer dead after %v", took)
	}
	for _, s := range nodes["fsn-1"].Status() {
		if s.Node == "gra-1" && (s.State != feed.Serving || !s.Out || !s.In || s.RTTms <= 0) {
			t.Errorf("gra-1 as fsn-1 sees it: %+v", s)
		}
	}

	// The same node comes back on the same address, as after a reboot.
	l, err := net.Listen("tcp", listeners["fsn-2"].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	run(t, "fsn-2", keys{ca.Leaf(t, uri("fsn-2")), ca.Pool()}, l, nodes["fsn-2"].cfg.Peers...)
	nodes["fsn-1"].until(t, "fsn-2", feed.Serving)
}

// hole forwards connections until it is plugged; then it keeps them open and passes nothing on, as a network that
// swallows packets does.
type hole struct {
	plugged atomic.Bool
	l       net.Listener
	wg      sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

func newHole(t *testing.T, to string) *hole {
	h := &hole{l: listen(t)}
	h.wg.Go(func() {
		for {
			in, err := h.l.Accept()
			if err != nil {
				return
			}
			out, err := net.DialTimeout("tcp", to, patience)
			if err != nil {
				in.Close()
				continue
			}
			h.mu.Lock()
			h.conns = append(h.conns, in, out)
			h.mu.Unlock()
			h.wg.Go(func() { h.pass(in, out) })
			h.wg.Go(func() { h.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		h.l.Close()
		h.mu.Lock()
		for _, c := range h.conns {
			c.Close()
		}
		h.mu.Unlock()
		h.wg.Wait()
	})
	return h
}

func (h *hole) pass(from, to net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			to.Close()
			return
		}
		if !h.plugged.Load() {
			_, _ = to.Write(buf[:n])
		}
	}
}

func TestBlackholedPeerIsDeadInThreeSeconds(t *testing.T) {
	ca := certtest.NewCA(t)
	la, lb := listen(t), listen(t)
	toA, toB := newHole(t, la.Addr().String()), newHole(t, lb.Addr().String())
	a := run(t, "fsn-1", keys{ca.Leaf(t, uri("fsn-1")), ca.Pool()}, la, peerAt("fsn-2", toB.l.Addr()))
	b := run(t, "fsn-2", keys{ca.Leaf(t, uri("fsn-2")), ca.Pool()}, lb, peerAt("fsn-1", toA.l.Addr()))
	a.until(t, "fsn-2", feed.Serving)
	b.until(t, "fsn-1", feed.Serving)
	toA.plugged.Store(true)
	toB.plugged.Store(true)
	for _, w := range []struct {
		n    *node
		peer string
	}{{a, "fsn-2"}, {b, "fsn-1"}} {
		took := w.n.until(t, w.peer, feed.Dead)
		t.Logf("%s dead after %v", w.peer, took)
		if took > 3*time.Second {
			t.Errorf("%s dead after %v, want 3s at most", w.peer, took)
		}
	}
	toA.plugged.Store(false)
	toB.plugged.Store(false)
	a.until(t, "fsn-2", feed.Serving)
	b.until(t, "fsn-1", feed.Serving)
}

func TestOneDirectionIsEnough(t *testing.T) {
	ca := certtest.NewCA(t)
	la, lb := listen(t), listen(t)
	nowhere := listen(t)
	nowhere.Close()
	a := run(t, "fsn-1", keys{ca.Leaf(t, uri("fsn-1")), ca.Pool()}, la, peerAt("fsn-2", nowhere.Addr()))
	b := run(t, "fsn-2", keys{ca.Leaf(t, uri("fsn-2")), ca.Pool()}, lb, peerAt("fsn-1", la.Addr()))
	a.until(t, "fsn-2", feed.Serving)
	b.until(t, "fsn-1", feed.Serving)
	if s := a.Status()[0]; s.Out || !s.In {
		t.Errorf("%+v", s)
	}
}

func TestWrongCertificates(t *testing.T) {
	ca, other := certtest.NewCA(t), certtest.NewCA(t)
	tests := []struct {
		name    string
		dialer  keys // what fsn-2 shows when it dials fsn-1
		problem string
	}{
		{"other authority", keys{other.Leaf(t, uri("fsn-2")), ca.Pool()}, "bad certificate"},
		{"other fleet", keys{ca.Leaf(t, "popfleet://prod/transport/fsn-2"), ca.Pool()}, "bad certificate"},
		{"other service", keys{ca.Leaf(t, "popfleet://demo/replicator/fsn-2"), ca.Pool()}, "bad certificate"},
		{"not a peer", keys{ca.Leaf(t, uri("fsn-9")), ca.Pool()}, "bad certificate"},
		{"listener of another authority", keys{ca.Leaf(t, uri("fsn-2")), other.Pool()}, "unknown authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			la, lb := listen(t), listen(t)
			nowhere := listen(t)
			nowhere.Close()
			a := run(t, "fsn-1", keys{ca.Leaf(t, uri("fsn-1")), ca.Pool()}, la, peerAt("fsn-2", nowhere.Addr()))
			b := run(t, "fsn-2", tt.dialer, lb, peerAt("fsn-1", la.Addr()))
			problem(t, b, tt.problem)
			if s := a.Status()[0]; s.SilentS != -1 {
				t.Errorf("fsn-1 heard of fsn-2: %+v", s)
			}
		})
	}
	t.Run("another node answers", func(t *testing.T) {
		la, lb := listen(t), listen(t)
		run(t, "fsn-3", keys{ca.Leaf(t, uri("fsn-3")), ca.Pool()}, la)
		b := run(t, "fsn-2", keys{ca.Leaf(t, uri("fsn-2")), ca.Pool()}, lb, peerAt("fsn-1", la.Addr()))
		problem(t, b, `certificate of "fsn-3" where "fsn-1" was expected`)
	})
}

// problem waits until the node says why it can't reach its only peer.
func problem(t *testing.T, n *node, want string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		if strings.Contains(n.Status()[0].Problem, want) {
			return
		}
	}
	t.Fatalf("problem %q, want %q", n.Status()[0].Problem, want)
}

func TestStrangersAreCutOff(t *testing.T) {
	ca := certtest.NewCA(t)
	l := listen(t)
	run(t, "fsn-1", keys{ca.Leaf(t, uri("fsn-1")), ca.Pool()}, l, Peer{Node: "fsn-2", PoP: "fsn", Address: "127.0.0.1:1"})
	for _, first := range []string{"GET / HTTP/1.1\r\n\r\n", ""} {
		c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(c, first)
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", first, err)
		}
		c.Close()
	}
}
