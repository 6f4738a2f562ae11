package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(2, 3)
	l.now = func() time.Time { return now }
	for i := range 3 {
		if _, ok := l.take("a"); !ok {
			t.Fatalf("request %d of the burst was refused", i)
		}
	}
	if wait, ok := l.take("a"); ok || wait != 500*time.Millisecond {
		t.Fatalf("after the burst: %t, wait %s", ok, wait)
	}
	if _, ok := l.take("b"); !ok {
		t.Fatal("another client pays for the first")
	}
	now = now.Add(500 * time.Millisecond)
	if _, ok := l.take("a"); !ok {
		t.Fatal("the wait it was told was too short")
	}
	now = now.Add(-time.Hour) // the clock steps back
	if _, ok := l.take("a"); ok {
		t.Fatal("a clock that steps back gives tokens")
	}
}

func TestLimiterForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(1, 1)
	l.now = func() time.Time { return now }
	for i := range maxClients {
		l.take(fmt.Sprint(i))
	}
	now = now.Add(2 * time.Second)
	l.take("new")
	if n := len(l.buckets); n != 1 {
		t.Fatalf("%d clients are remembered", n)
	}
	for i := range 3 * maxClients { // all within one moment
		l.take(fmt.Sprint(i))
	}
	if n := len(l.buckets); n > maxClients {
		t.Fatalf("%d clients are remembered", n)
	}
}

func TestClient(t *testing.T) {
	for _, c := range []struct{ remote, header, want string }{
		{"127.0.0.1:4711", "", "127.0.0.1"},
		{"127.0.0.1:4711", "198.18.0.1", "198.18.0.1"},
		{"127.0.0.1:4711", "6.6.6.6, 198.18.0.1", "198.18.0.1"},
		{"127.0.0.1:4711", "unknown", "127.0.0.1"},
		{"[::1]:4711", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"198.18.0.9:4711", "6.6.6.6", "198.18.0.9"},
		{"[::ffff:198.18.0.9]:4711", "", "198.18.0.9"},
		{"@", "", "@"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		if c.header != "" {
			r.Header.Set("X-Forwarded-For", c.header)
		}
		if got := client(r); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestTooManyWritesAndStreams(t *testing.T) {
	s := newSite(t)
	l := DefaultLimits()
	l.WriteBurst, l.WritesPerSecond, l.Streams = 2, 0.001, 0
	server, err := New(s.store, s.hub, Options{Node: "n", Limits: l, Health: func() error { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.handler = server.Handler()
	s.thread("a")
	s.thread("b")
	w := s.ask("POST", "/api/threads", `{"title":"c"}`)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1000" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	if w := s.ask("GET", "/api/threads", ""); w.Code != 200 {
		t.Fatalf("reading is limited too: %d", w.Code)
	}
	if w := s.ask("GET", "/api/events", ""); w.Code != http.StatusTooManyRequests {
		t.Fatalf("a stream too many: %d", w.Code)
	}
}
