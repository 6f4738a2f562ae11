package stream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
	"popfleet/replication/oplog"
)

var _ Source = (*oplog.Log)(nil)

// logSink puts what comes into a log: durable when Apply returns, as a node's must be.
type logSink struct{ *oplog.Log }

func (s logSink) Apply(ctx context.Context, _ string, entries []oplog.Entry) error {
	return s.Append(ctx, entries...)
}
func (s logSink) Durable() oplog.Vector { return s.Vector() }

// quietly observes nothing.
type quietly struct{}

func (quietly) Heard(string, uint8, Heartbeat)       {}
func (quietly) Acked(string, oplog.Vector)           {}
func (quietly) Fenced(string, uint8, uint64, string) {}

func openLog(t testing.TB, origin uint8) *oplog.Log {
	t.Helper()
	l, err := oplog.Open(filepath.Join(t.TempDir(), "log"), oplog.Options{Origin: origin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func running(t testing.TB, s *Set, l net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// pairOf is two nodes with logs on disk, over TLS on the loopback.
func pairOf(t testing.TB, identity func(node string) *mtls.Identity, sinks func(i int, l *oplog.Log) Sink) (logs [2]*oplog.Log, sets [2]*Set) {
	t.Helper()
	listeners := [2]net.Listener{listen(t), listen(t)}
	for i, name := range []string{"a", "b"} {
		logs[i] = openLog(t, uint8(i+1))
		other := Peer{Node: names[1-i], Address: listeners[1-i].Addr().String(), Origin: uint8(2 - i)}
		sets[i] = New(Config{Node: name, Origin: uint8(i + 1), Peers: []Peer{other}, Log: slog.New(slog.DiscardHandler)},
			MTLS{Fleet: "demo", Identity: identity(name), Nodes: []string{other.Node}}, logs[i], sinks(i, logs[i]), quietly{})
		running(t, sets[i], listeners[i])
	}
	return logs, sets
}

func TestLogsFollowEachOtherOverTLS(t *testing.T) {
	ca := mtlstest.New(t)
	logs, sets := pairOf(t, func(n string) *mtls.Identity {
		return ca.Identity(mtls.Name{Fleet: "demo", Service: Service, Node: n})
	}, func(_ int, l *oplog.Log) Sink { return logSink{l} })
	for i, l := range logs {
		if err := l.Append(t.Context(), entries(uint8(i+1), 1, 3000)...); err != nil {
			t.Fatal(err)
		}
	}
	want := oplog.Vector{1: 3000, 2: 3000}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, l := range logs {
		for changed := l.Changed(); !l.Vector().Covers(want); changed = l.Changed() {
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("%v; %+v", l.Vector(), sets[0].Statuses())
			}
		}
	}
}

func TestOnlyMembersGetThroughTheHandshake(t *testing.T) {
	ca, other := mtlstest.New(t), mtlstest.New(t)
	name := func(fleet, service, node string) mtls.Name {
		return mtls.Name{Fleet: fleet, Service: service, Node: node}
	}
	l := listen(t)
	defer l.Close()
	server := MTLS{Fleet: "demo", Identity: ca.Identity(name("demo", Service, "a")), Nodes: []string{"b"}}
	for what, c := range map[string]struct {
		id   *mtls.Identity
		dial string
		ok   bool
	}{
		"a member":             {ca.Identity(name("demo", Service, "b")), "a", true},
		"a node not named":     {ca.Identity(name("demo", Service, "x")), "a", false},
		"another service":      {ca.Identity(name("demo", "transport", "b")), "a", false},
		"another fleet":        {ca.Identity(name("other", Service, "b")), "a", false},
		"another authority":    {other.Identity(name("demo", Service, "b")), "a", false},
		"one who expects else": {ca.Identity(name("demo", Service, "b")), "c", false},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			accepted := make(chan error, 1)
			go func() {
				raw, err := l.Accept()
				if err != nil {
					accepted <- err
					return
				}
				defer raw.Close()
				_, node, err := server.Accept(ctx, raw)
				if err == nil && node != "b" {
					err = errors.New("took it for " + node)
				}
				accepted <- err
			}()
			client := MTLS{Fleet: "demo", Identity: c.id, Nodes: []string{"a"}}
			conn, dialed := client.Dial(ctx, Peer{Node: c.dial, Address: l.Addr().String()})
			if conn != nil {
				defer conn.Close()
			}
			if err := <-accepted; (err == nil && dialed == nil) != c.ok {
				t.Errorf("dialed %v, accepted %v", dialed, err)
			}
		})
	}
}
