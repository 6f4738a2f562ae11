package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/internal/dial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, d Dial) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&Server{Dial: d, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestCarriesBothWays(t *testing.T) {
	for _, user := range []string{"", "name:secret@"} {
		door := serve(t, func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				defer b.Close()
				fmt.Fprintf(b, "you asked for %s\n", to)
				_, _ = io.Copy(io.Discard, b)
			}()
			return a, nil
		})
		d, err := dial.New("socks5://" + user + door)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.DialContext(t.Context(), "tcp", "198.18.0.10:2222")
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err != nil || string(buf[:n]) != "you asked for 198.18.0.10:2222\n" {
			t.Errorf("read %q, %v", buf[:n], err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRepliesSayWhy(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.ECONNREFUSED, "connection refused"}, {syscall.EHOSTUNREACH, "host unreachable"},
		{syscall.ETIMEDOUT, "TTL expired"}, {errors.New("x"), "general SOCKS server failure"},
	} {
		d, err := dial.New("socks5://" + serve(t, func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, c.err }))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := d.DialContext(ctx, "tcp", "198.18.0.10:22"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: client sees %v, want %s", c.err, err, c.want)
		}
		cancel()
	}
}

type talk struct {
	io.Reader
	io.Writer
}

func FuzzHandshake(f *testing.F) {
	f.Add([]byte{5, 1, 0, 5, 1, 0, 1, 198, 18, 0, 10, 8, 174})
	f.Add([]byte{5, 2, 0, 2, 5, 1, 0, 3, 11, '1', '9', '8', '.', '1', '8', '.', '0', '.', '1', '0', '0', 22})
	f.Add([]byte{5, 1, 2, 1, 1, 'u', 1, 'p', 5, 1, 0, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		to, code, err := handshake(talk{bytes.NewReader(data), io.Discard})
		if err == nil && (code != 0 || !to.Addr().IsValid()) {
			t.Errorf("accepted %x as %v, code %d", data, to, code)
		}
	})
}
