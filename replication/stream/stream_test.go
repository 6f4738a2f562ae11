package stream

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popfleet/replication/oplog"
)

func TestEntriesCrossBothWaysAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := cluster(t, newNetwork(), 3, nil)
		defer stop(nodes)
		for i, n := range nodes {
			n.write(uint8(i+1), 2000)
		}
		want := oplog.Vector{1: 2000, 2: 2000, 3: 2000}
		within(t, 3*time.Second, "all have all", same(nodes, want))
		twice := 0
		for i, n := range nodes {
			twice += n.twice
			if !reflect.DeepEqual(n.logs[1], nodes[0].logs[1]) {
				t.Errorf("%s has other entries", names[i])
			}
		}
		if twice > 3000 { // a node that connects to one peer first takes from it what it has of the third
			t.Errorf("%d entries came twice", twice)
		}
		within(t, 2*time.Second, "a hears that b has all", func() bool { return nodes[0].ackedBy("b").Covers(want) })
		before := nodes[1].twice + nodes[2].twice
		nodes[0].write(1, 500)
		if took := within(t, time.Second, "live entries", same(nodes, oplog.Vector{1: 2500, 2: 2000, 3: 2000})); took > 20*time.Millisecond {
			t.Errorf("live entries took %v on a network without delay", took)
		}
		if again := nodes[1].twice + nodes[2].twice - before; again != 0 {
			t.Errorf("%d live entries came twice", again)
		}
		st := nodes[0].set.Statuses()[0]
		if st.Node != "b" || st.State != Connected || st.Version != Version || !st.ServesIt || *st.RoundTrip != 0 || *st.ClockAhead != 0 || st.Behind != 0 {
			t.Errorf("status %+v", st)
		}
		if h := nodes[0].heard["b"]; h.Low != 7 || h.HLC == 0 {
			t.Errorf("heartbeat %+v", h)
		}
	})
}

func TestAThirdNodeRelaysWhatTwoCannotExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		net.set("b", "a", true) // b can't reach a, nor a b
		net.set("a", "b", true)
		nodes := cluster(t, net, 3, nil)
		defer stop(nodes)
		within(t, 5*time.Second, "c is connected", func() bool { return nodes[1].set.Statuses()[1].State == Connected })
		nodes[0].write(1, 300)
		nodes[1].write(2, 300)
		took := within(t, 5*time.Second, "relayed", same(nodes, oplog.Vector{1: 300, 2: 300}))
		if nodes[1].took["c"] != 300 || nodes[1].took["a"] != 0 {
			t.Errorf("b took %v", nodes[1].took)
		}
		within(t, 10*time.Second, "a hears through its own link when it is back", func() bool {
			net.set("b", "a", false)
			return nodes[0].ackedBy("b").Covers(oplog.Vector{1: 300})
		})
		nodes[0].write(1, 10)
		within(t, 5*time.Second, "direct again", same(nodes, oplog.Vector{1: 310, 2: 300}))
		if nodes[1].took["a"] != 10 {
			t.Errorf("b took %v after the cut was mended", nodes[1].took)
		}
		t.Logf("relayed after %v", took)
	})
}

func TestASlowPeerCostsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := cluster(t, newNetwork(), 3, func(_ int, c *Config) { c.Window, c.BatchBytes = 64<<10, 16<<10 })
		defer stop(nodes)
		gate := make(chan struct{})
		nodes[1].store.mu.Lock()
		nodes[1].gate = gate
		nodes[1].store.mu.Unlock()
		nodes[0].write(1, 5000) // 1.5 MB
		within(t, 5*time.Second, "c has all", func() bool { return nodes[2].Vector()[1] == 5000 })
		time.Sleep(30 * time.Second) // the bubble's clock: no deadline may end a connection that is only slow
		st := nodes[1].set.Statuses()
		if st[0].State != Connected || st[1].State != Connected {
			t.Errorf("%+v", st)
		}
		if q := st[0].Queued + st[1].Queued; q > 2*(80<<10) || q < 16<<10 {
			t.Errorf("%d bytes wait at the slow peer", q)
		}
		close(gate)
		within(t, 70*time.Second, "the slow one catches up", same(nodes, oplog.Vector{1: 5000}))
	})
}

func TestThisVersionAndTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := cluster(t, newNetwork(), 2, func(i int, c *Config) {
			if i == 1 {
				c.max = MinVersion
			}
		})
		defer stop(nodes)
		nodes[0].write(1, 1000)
		nodes[1].write(2, 1000)
		within(t, 5*time.Second, "both have all", same(nodes, oplog.Vector{1: 1000, 2: 1000}))
		if v := nodes[0].set.Statuses()[0].Version; v != 1 {
			t.Errorf("they speak version %d", v)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		nodes := cluster(t, newNetwork(), 2, func(i int, c *Config) {
			if i == 1 {
				c.min, c.max = 3, 4
			}
		})
		defer stop(nodes)
		nodes[0].write(1, 10)
		time.Sleep(time.Minute)
		for i, n := range nodes {
			if st := n.set.Statuses()[0]; st.State != NeverConnected || !strings.Contains(st.Error, "version") || n.Vector()[2-uint8(i)] != 0 {
				t.Errorf("%s: %+v", names[i], st)
			}
		}
	})
}

func TestSilenceEndsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		nodes := cluster(t, net, 2, nil)
		defer stop(nodes)
		nodes[0].write(1, 10)
		within(t, 5*time.Second, "connected", same(nodes, oplog.Vector{1: 10}))
		net.lose("a", "b", true)
		nodes[0].write(1, 10)
		within(t, 10*time.Second, "b notices", func() bool { return nodes[1].set.Statuses()[0].State == Stalled })
		net.lose("a", "b", false)
		took := within(t, 30*time.Second, "b is back", same(nodes, oplog.Vector{1: 20}))
		t.Logf("back after %v", took)
	})
}

func TestAnOriginThatOneCannotServeIsAskedOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		nodes := cluster(t, net, 3, nil)
		defer stop(nodes)
		net.set("b", "a", true)
		net.set("b", "c", true)
		nodes[0].write(1, 100)
		within(t, 5*time.Second, "c has it", func() bool { return nodes[2].Vector()[1] == 100 })
		nodes[0].store.mu.Lock()
		nodes[0].floor[1] = 60
		nodes[0].store.mu.Unlock()
		net.set("b", "a", false)
		within(t, 10*time.Second, "b is told", func() bool {
			nodes[1].mu.Lock()
			defer nodes[1].mu.Unlock()
			return len(nodes[1].fenced) > 0 && nodes[1].fenced[0] == "a cannot serve 1 up to 60"
		})
		if v := nodes[1].Vector(); v[1] != 0 {
			t.Errorf("b has %v", v)
		}
		net.set("b", "c", false)
		within(t, 10*time.Second, "b has it from c", same(nodes, oplog.Vector{1: 100}))
	})
}

func TestWhoIsNotAdmittedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := cluster(t, newNetwork(), 2, func(i int, c *Config) {
			if i == 0 {
				c.Admit = func(h Hello) error {
					if h.Epoch < 5 {
						return errors.New("membership of an older epoch")
					}
					return nil
				}
			}
		})
		defer stop(nodes)
		time.Sleep(20 * time.Second)
		for i, n := range nodes {
			if st := n.set.Statuses()[0]; !strings.Contains(st.Error, "older epoch") {
				t.Errorf("%s: %+v", names[i], st)
			}
		}
	})
}

// stranger speaks to node a by hand, as peer b when it serves, over one connection, and returns what a logged of it. a's
// sink takes nothing.
func stranger(t *testing.T, script func(l *link)) string {
	var logged bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork()
		bs := network.listen("b")
		defer bs.Close()
		a := start(t, network, 0, 2, func(_ int, c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		defer a.stop()
		a.store.mu.Lock()
		a.gate = make(chan struct{})
		a.store.mu.Unlock()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			c, err := bs.Accept()
			if err != nil {
				return
			}
			bs.Close()
			defer c.Close()
			wg.Go(func() { drain(c) })
			script(newLink(c, time.Second))
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := a.set.Statuses()[0]; st.State == Connected || st.Error == "" {
			t.Errorf("status %+v", st)
		}
	})
	return logged.String()
}

func drain(c net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

func TestAPeerOfANewerVersionIsUnderstood(t *testing.T) {
	var got oplog.Vector
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork()
		a := start(t, network, 0, 2, nil)
		defer a.stop()
		bs := network.listen("b")
		defer bs.Close()
		go func() {
			c, err := bs.Accept()
			if err != nil {
				return
			}
			go drain(c)
			l := newLink(c, 10*time.Second)
			p, _ := newPacker(2)
			defer p.close()
			payload, _, _ := p.pack(entries(2, 1, 50))
			hello := append(Hello{1, 9, 2, 0, "b", "p", oplog.Vector{2: 50}}.encode(), "fields of version 9"...)
			_ = l.send(message{kindHello, hello}, message{90, make([]byte, 3000)}, message{kindBatch, payload}, message{kindDigest, nil}, message{91, nil})
		}()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got = a.Vector()
		a.stop()
	})
	if got[2] != 50 {
		t.Errorf("a has %v", got)
	}
}

func TestMisbehaviorEndsTheConnection(t *testing.T) {
	hello := func(h Hello) func(*link) {
		return func(l *link) {
			_ = l.send(message{kindHello, h.encode()})
			time.Sleep(time.Second)
		}
	}
	for name, c := range map[string]struct {
		script func(*link)
		want   string
	}{
		"another node's name":   {hello(Hello{1, 2, 2, 0, "c", "p", nil}), "not the expected peer"},
		"another node's origin": {hello(Hello{1, 2, 9, 0, "b", "p", nil}), "not the expected peer"},
		"no hello":              {func(l *link) { _ = l.send(message{kindCredit, encodeCredit(1)}) }, "before hello"},
		"noise":                 {func(l *link) { _, _ = l.conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }, "not a frame"},
		"silence":               {func(*link) { time.Sleep(9 * time.Second) }, "handshake: context deadline exceeded"},
		"a batch beyond the credit": {func(l *link) {
			_ = l.send(message{kindHello, Hello{1, 2, 2, 0, "b", "p", nil}.encode()})
			p, _ := newPacker(1)
			defer p.close()
			payload, _, _ := p.pack(entries(2, 1, 9000))
			for l.send(message{kindBatch, payload}) == nil {
			}
		}, "beyond the credit"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := stranger(t, c.script); !strings.Contains(got, c.want) {
				t.Errorf("logged %s", got)
			}
		})
	}
}

// Random cuts, lost directions and restarts of links while all write; once all is mended, everybody has everything soon.
func TestChaosConverges(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
	}
}

func chaos(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	net := newNetwork()
	nodes := cluster(t, net, 4, func(_ int, c *Config) { c.Window, c.BatchBytes = 32<<10, 8<<10 })
	defer stop(nodes)
	want := oplog.Vector{}
	for range 60 {
		a, b := names[random.IntN(4)], names[random.IntN(4)]
		switch random.IntN(4) {
		case 0:
			net.set(a, b, true)
		case 1:
			net.set(a, b, false)
		case 2:
			net.lose(a, b, true)
		case 3:
			net.lose(a, b, false)
		}
		for i, n := range nodes {
			count := random.IntN(50)
			n.write(uint8(i+1), count)
			want[uint8(i+1)] += uint64(count)
		}
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
	}
	for _, a := range names {
		for _, b := range names {
			net.set(a, b, false)
			net.lose(a, b, false)
		}
	}
	within(t, 60*time.Second, "converged", same(nodes, want))
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		s := New(Config{Node: "a", Origin: 1}, transport{net, "a"}, newStore(), newStore(), &node{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx, net.listen("a")); err != nil {
			t.Error(err)
		}
	})
}
