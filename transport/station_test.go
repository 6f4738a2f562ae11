package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"popfleet/dns/feed"
	"popfleet/internal/control"
	"popfleet/transport/certtest"
)

const patience = 30 * time.Second

// app is an application whose health can be switched, with one slow request and one stream.
type app struct {
	*httptest.Server
	sick    atomic.Bool
	inside  chan string   // a slow request or a stream began
	release chan struct{} // closed: slow requests end
}

func newApp(t *testing.T) *app {
	a := &app{inside: make(chan string, 8), release: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if a.sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		a.inside <- "slow"
		<-a.release
		fmt.Fprint(w, "done")
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		w.(http.Flusher).Flush()
		a.inside <- "events"
		select {
		case <-r.Context().Done():
		case <-a.release:
			fmt.Fprint(w, "data: bye\n\n")
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hi") })
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

// maps collects what the transport tells dns.
type maps struct {
	path string
	mu   sync.Mutex
	last feed.Map
}

func newMaps(t *testing.T, dir string) *maps {
	m := &maps{path: filepath.Join(dir, "feed.sock")}
	m.listen(t)
	return m
}

func (m *maps) listen(t *testing.T) (stop func()) {
	l, err := net.Listen("unix", m.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var once sync.Once
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				_ = feed.Read(c, func(got feed.Map) { m.mu.Lock(); m.last = got; m.mu.Unlock() })
			})
		}
	})
	stop = func() {
		once.Do(func() {
			l.Close()
			mu.Lock()
			for _, c := range conns {
				c.Close()
			}
			mu.Unlock()
			wg.Wait()
		})
	}
	t.Cleanup(stop)
	return stop
}

// states is the last map as "name=state name=state".
func (m *maps) states() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, n := range m.last.Nodes {
		out = append(out, n.Name+"="+n.State)
	}
	return strings.Join(out, " ")
}

// station is one whole transport with all around it.
type station struct {
	app     *app
	maps    *maps
	cfg     Config
	bound   Bound
	control *control.Client
	client  *http.Client
	stop    func()
}

type option func(*Config, *Deps)

func newStation(t *testing.T, ca *certtest.CA, name string, options ...option) *station {
	t.Helper()
	dir := t.TempDir()
	s := &station{app: newApp(t), maps: newMaps(t, dir)}
	c := Default()
	c.Fleet, c.Node, c.PoP, c.Addresses = "demo", name, "fsn", []netip.Addr{netip.MustParseAddr("198.18.0.10")}
	c.Listen, c.Redirect, c.Mesh = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.App, c.Names, c.Feed, c.Control = s.app.URL, []string{"demo.test"}, s.maps.path, filepath.Join(dir, "control.sock")
	c.TLS.Cert, c.TLS.Key, c.TLS.CA = ca.Files(t, dir, ca.Leaf(t, "popfleet://demo/transport/"+name, "demo.test", "*.demo.test"))
	c.Drain = Drain{Grace: Duration(100 * time.Millisecond), Max: Duration(patience)}
	ready, done := make(chan Bound, 1), make(chan error, 1)
	deps := Deps{Log: slog.New(slog.DiscardHandler), Version: "test", Ready: func(b Bound) { ready <- b }}
	for _, o := range options {
		o(&c, &deps)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- Run(ctx, c, deps) }()
	var once sync.Once
	s.stop = func() {
		cancel()
		once.Do(func() {
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(s.stop)
	select {
	case s.bound = <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("run: %v", err)
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	s.cfg, s.control = c, control.Dial(c.Control)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	t.Cleanup(tr.CloseIdleConnections)
	s.client = &http.Client{Transport: tr, Timeout: 2 * patience}
	s.await(t, "serving")
	return s
}

func (s *station) url(path string) string { return "https://" + s.bound.HTTPS.String() + path }

func (s *station) await(t *testing.T, state string) {
	t.Helper()
	eventually(t, "state "+state, func() (string, bool) {
		st, err := s.control.Status(t.Context())
		return fmt.Sprint(st.State, err), err == nil && st.State == state
	})
}

func eventually(t *testing.T, what string, ok func() (string, bool)) time.Duration {
	t.Helper()
	began, last := time.Now(), ""
	for time.Since(began) < patience {
		var yes bool
		if last, yes = ok(); yes {
			return time.Since(began)
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("%s: last seen %s", what, last)
	return 0
}

func (s *station) awaitMap(t *testing.T, want string) time.Duration {
	t.Helper()
	return eventually(t, "map "+want, func() (string, bool) { got := s.maps.states(); return got, got == want })
}

func body(t *testing.T, res *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
