package splice

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// msg is an OP_MSG with the given flags and body.
func msg(id, responseTo int32, flags uint32, body []byte) []byte {
	b := make([]byte, headerBytes+4, headerBytes+4+len(body))
	binary.LittleEndian.PutUint32(b[0:], uint32(cap(b)))
	binary.LittleEndian.PutUint32(b[4:], uint32(id))
	binary.LittleEndian.PutUint32(b[8:], uint32(responseTo))
	binary.LittleEndian.PutUint32(b[12:], opMsg)
	binary.LittleEndian.PutUint32(b[16:], flags)
	return append(b, body...)
}

// world is a proxy between a test's client and a scripted store.
func world(t *testing.T, store func(net.Conn)) (*Proxy, net.Conn) {
	t.Helper()
	sl, pl := listen(t), listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	p := New(sl.Addr().String(), slog.New(slog.DiscardHandler))
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		if c, err := sl.Accept(); err == nil {
			store(c)
			c.Close()
		}
	}()
	go func() { defer func() { done <- struct{}{} }(); p.Serve(ctx, pl) }()
	client, err := net.Dial("tcp", pl.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { client.Close(); cancel(); sl.Close(); <-done; <-done })
	return p, client
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestForwardsUnchanged(t *testing.T) {
	request, reply := msg(7, 0, 0, bytes.Repeat([]byte("q"), 100_000)), msg(1, 7, 0, []byte("answer"))
	got := make(chan []byte, 1)
	p, client := world(t, func(c net.Conn) {
		b := make([]byte, len(request))
		io.ReadFull(c, b)
		got <- b
		c.Write(reply)
		io.Copy(io.Discard, c)
	})
	if _, err := client.Write(request); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, request) {
		t.Error("the store did not get the request's bytes")
	}
	back := make([]byte, len(reply))
	if _, err := io.ReadFull(client, back); err != nil || !bytes.Equal(back, reply) {
		t.Errorf("the client got %q, %v", back, err)
	}
	if c := p.Counters(); c.Requests != 1 || c.Replies != 1 || c.InFlight != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestMalformedClosesThisConnectionOnly(t *testing.T) {
	tests := map[string][]byte{
		"too long":       {0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0},
		"negative":       {0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0},
		"too short":      {16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0},
		"unknown opcode": {20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0},
		"http":           []byte("GET / HTTP/1.1\r\n"),
	}
	for name, bytes := range tests {
		t.Run(name, func(t *testing.T) {
			p, client := world(t, func(c net.Conn) { io.Copy(io.Discard, c) })
			client.Write(bytes)
			if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Fatalf("read %d bytes, %v; want a closed connection", n, err)
			}
			if c := p.Counters(); c.Malformed != 1 || c.Requests != 0 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

func TestUnacknowledgedWritesAreNotInFlight(t *testing.T) {
	seen := make(chan struct{})
	want := msg(1, 0, moreToCome, []byte("w0"))
	p, client := world(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(want)))
		close(seen)
		io.Copy(io.Discard, c)
	})
	client.Write(want)
	<-seen
	if c := p.Counters(); c.Requests != 1 || c.InFlight != 0 {
		t.Errorf("counters %+v", c)
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add(msg(1, 0, 0, []byte("body")))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var buf [headerBytes + 4]byte
		m, err := readHead(bytes.NewReader(b), &buf)
		if err == nil && (m.rest() < 0 || m.rest() > maxMessageBytes) {
			t.Errorf("%d bytes would follow", m.rest())
		}
	})
}

func BenchmarkForward(b *testing.B) {
	request, reply := msg(7, 0, 0, make([]byte, 1024)), msg(1, 7, 0, make([]byte, 1024))
	sl, _ := net.Listen("tcp", "127.0.0.1:0")
	pl, _ := net.Listen("tcp", "127.0.0.1:0")
	defer sl.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			c, err := sl.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, len(request)); ; {
					if _, err := io.ReadFull(c, buf); err != nil {
						return
					}
					c.Write(reply)
				}
			}()
		}
	}()
	done := make(chan struct{})
	go func() { defer close(done); New(sl.Addr().String(), slog.New(slog.DiscardHandler)).Serve(ctx, pl) }()
	defer func() { cancel(); <-done }()
	for name, addr := range map[string]string{"direct": sl.Addr().String(), "through": pl.Addr().String()} {
		b.Run(name, func(b *testing.B) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, len(reply))
			for b.Loop() {
				c.Write(request)
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
