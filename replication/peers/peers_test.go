package peers

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one running set.
type node struct {
	set  *Set
	stop func()
}

func run(t *testing.T, ca *mtlstest.Authority, name string, l net.Listener, peers ...Peer) node {
	t.Helper()
	id := ca.Identity(mtls.Name{Fleet: "demo", Service: Service, Node: name})
	s := New(Config{Fleet: "demo", Node: name, Peers: peers, Heartbeat: 20 * time.Millisecond, StalledAfter: 300 * time.Millisecond,
		MaxPause: 100 * time.Millisecond}, id, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx, l) }()
	n := node{s, func() { cancel(); <-done }}
	t.Cleanup(n.stop)
	return n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// await polls the first pair until ok, within a deadline that a busy machine can meet.
func await(t *testing.T, s *Set, what string, ok func(Pair) bool) Pair {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p := s.Pairs()[0]
		if ok(p) {
			return p
		}
		select {
		case <-deadline:
			t.Fatalf("never %s: %+v", what, p)
		case <-tick.C:
		}
	}
}

func connected(p Pair) bool { return p.State == Connected }

func TestBothDirectionsAreMeasured(t *testing.T) {
	ca, la, lb := mtlstest.New(t), listen(t), listen(t)
	a := run(t, ca, "fsn-1", la, Peer{"fsn-2", lb.Addr().String()})
	b := run(t, ca, "fsn-2", lb, Peer{"fsn-1", la.Addr().String()})
	for _, n := range []node{a, b} {
		p := await(t, n.set, "connected", connected)
		if p.Replicating || p.RTTMs == nil || *p.RTTMs <= 0 || p.OffsetMs == nil || p.AgeSec == nil {
			t.Errorf("pair %+v", p)
		}
	}
}

func TestADeadPeerStallsAndComesBack(t *testing.T) {
	ca, la, lb := mtlstest.New(t), listen(t), listen(t)
	a := run(t, ca, "fsn-1", la, Peer{"fsn-2", lb.Addr().String()})
	b := run(t, ca, "fsn-2", lb, Peer{"fsn-1", la.Addr().String()})
	await(t, a.set, "connected", connected)
	b.stop()
	p := await(t, a.set, "stalled", func(p Pair) bool { return p.State == Stalled })
	if p.RTTMs != nil || p.OffsetMs != nil {
		t.Errorf("a stalled pair shows old figures as current: %+v", p)
	}
	again, err := net.Listen("tcp", lb.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	run(t, ca, "fsn-2", again, Peer{"fsn-1", la.Addr().String()})
	await(t, a.set, "connected again", connected)
}

func TestAStrangerIsNeverConnected(t *testing.T) {
	ca, other := mtlstest.New(t), mtlstest.New(t)
	tests := map[string]struct {
		authority *mtlstest.Authority
		name      string // who answers on fsn-2's address
		want      string
	}{
		"another node":      {ca, "fsn-3", "expected popfleet://demo/replicator/fsn-2"},
		"another authority": {other, "fsn-2", "authority"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			la, lb := listen(t), listen(t)
			a := run(t, ca, "fsn-1", la, Peer{"fsn-2", lb.Addr().String()})
			run(t, c.authority, c.name, lb, Peer{"fsn-1", la.Addr().String()})
			p := await(t, a.set, "refused", func(p Pair) bool { return p.Error != "" })
			if p.State != NeverConnected || p.AgeSec != nil || !strings.Contains(p.Error, c.want) {
				t.Errorf("pair %+v, want an error with %q", p, c.want)
			}
		})
	}
}

func TestMeasure(t *testing.T) {
	at := func(ms int64) int64 { return ms * int64(time.Millisecond) }
	// Sent at 100, the peer's clock is 50 ahead, 10 each way, 3 in the peer.
	p := pong{ping{1, at(100)}, at(160), at(163)}
	rtt, offset := p.measure(time.Unix(0, at(123)))
	if rtt != 20*time.Millisecond || offset != 50*time.Millisecond {
		t.Errorf("rtt %s, offset %s; want 20ms, 50ms", rtt, offset)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(ping{1, 2}.frame())
	f.Add(pong{ping{1, 2}, 3, 4}.frame())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, payload, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		switch kind {
		case kindPing:
			if p, err := parsePing(payload); err == nil && len(payload) == 16 && !bytes.Equal(p.frame(), b[:headBytes+16]) {
				t.Errorf("%x reads as %+v and writes as %x", b, p, p.frame())
			} else if err != nil && !errors.Is(err, ErrFrame) {
				t.Error(err)
			}
		case kindPong:
			if p, err := parsePong(payload); err == nil && len(payload) == 32 && !bytes.Equal(p.frame(), b[:headBytes+32]) {
				t.Errorf("%x reads as %+v and writes as %x", b, p, p.frame())
			}
		}
	})
}
