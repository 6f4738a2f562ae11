package back

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// scripted accepts connections and hands each to a function.
func scripted(t *testing.T, serve func(int, net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); serve(n, c) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// answer reads one command and answers it with d.
func answer(c net.Conn, offset int32, d bson.D) (bson.Raw, error) {
	m, err := wire.ReadMessage(c, wire.DefaultLimits())
	if err != nil {
		return nil, err
	}
	body, err := bson.Marshal(append(d, bson.E{Key: "ok", Value: 1.0}))
	if err != nil {
		return nil, err
	}
	b, err := wire.AppendMessage(nil, &wire.Message{Op: wire.OpMsg, ResponseTo: m.RequestID + offset, Body: body})
	if err == nil {
		_, err = c.Write(b)
	}
	return m.Body, err
}

var greeting = bson.D{{Key: "maxWireVersion", Value: int32(21)}}

// A single server without sessions must not see what belongs to them.
func TestStandaloneSeesNoSession(t *testing.T) {
	seen := make(chan bson.Raw, 1)
	p := pool(t, scripted(t, func(_ int, c net.Conn) {
		if _, err := answer(c, 0, greeting); err == nil {
			body, _ := answer(c, 0, nil)
			seen <- body
		}
	}), func(c *Config) { c.Strip = []string{"comment"} })
	_, err := p.Do(t.Context(), command(t, bson.D{{Key: "find", Value: "c"}, {Key: "lsid", Value: bson.D{}}, {Key: "txnNumber", Value: int64(1)},
		{Key: "filter", Value: bson.D{{Key: "lsid", Value: 1}}}, {Key: "$clusterTime", Value: bson.D{}}, {Key: "comment", Value: "x"},
		{Key: "$readPreference", Value: bson.D{}}, {Key: "readConcern", Value: bson.D{}}}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := (<-seen).String(), `{"find": "c","filter": {"lsid": {"$numberInt":"1"}},"$db": "app"}`; got != want {
		t.Errorf("%s, expected %s", got, want)
	}
}

func TestBrokenBackends(t *testing.T) {
	cases := map[string]struct {
		serve func(net.Conn)
		sent  bool
	}{
		"closes at once":    {func(net.Conn) {}, false},
		"greets in garbage": {func(c net.Conn) { c.Write(bytes.Repeat([]byte{9}, 100)) }, false},
		"closes after the command": {func(c net.Conn) {
			answer(c, 0, greeting)
			wire.ReadMessage(c, wire.DefaultLimits())
		}, true},
		"answers another": {func(c net.Conn) { answer(c, 0, greeting); answer(c, 5, nil) }, true},
		"answers garbage": {func(c net.Conn) {
			answer(c, 0, greeting)
			wire.ReadMessage(c, wire.DefaultLimits())
			c.Write(bytes.Repeat([]byte{9}, 100))
			io.Copy(io.Discard, c)
		}, true},
	}
	for name, broken := range cases {
		t.Run(name, func(t *testing.T) {
			p := pool(t, scripted(t, func(_ int, c net.Conn) { broken.serve(c) }), nil)
			_, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}})
			var e *Error
			if !errors.As(err, &e) || e.Sent != broken.sent {
				t.Errorf("%#v: %v", e, err)
			}
			if c := p.Counters(); c.Open != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// A connection that the backend closed while it lay idle is noticed before a command is lost on it.
func TestClosedIdleConnectionIsNotUsed(t *testing.T) {
	closed := make(chan struct{})
	p := pool(t, scripted(t, func(n int, c net.Conn) {
		answer(c, 0, greeting)
		answer(c, 0, nil)
		if n == 0 {
			c.Close()
			close(closed)
		}
	}), nil)
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	<-closed
	p.mu.Lock()
	p.idle[0].idleSince = time.Now().Add(-2 * probeAfter)
	idle := p.idle[0].net
	p.mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); alive(idle); { // the end is on its way through the kernel
		if time.Now().After(deadline) {
			t.Fatal("the closed connection looks alive")
		}
	}
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}}); err != nil {
		t.Error(err)
	}
	if c := p.Counters(); c.Dialed != 2 || c.Broken != 0 {
		t.Errorf("%+v", c)
	}
}
