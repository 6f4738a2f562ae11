package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"popfleet/transport/certtest"
)

// TestMain looks for leaks. The library lingers half a second over a connection it cut in the middle of a body, which
// is as long as goleak is patient.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const patience = 30 * time.Second

// face is an edge in front of an application, with a client for it.
type face struct {
	*Edge
	server *Server
	url    string
	ca     *certtest.CA
}

func newFace(t testing.TB, app http.Handler, limits Limits) *face {
	t.Helper()
	origin := httptest.NewServer(app)
	t.Cleanup(origin.Close)
	return faceTo(t, origin.URL, limits)
}

func faceTo(t testing.TB, origin string, limits Limits) *face {
	t.Helper()
	u, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	f := &face{ca: certtest.NewCA(t)}
	leaf := f.ca.Leaf(t, "popfleet://demo/transport/fsn-1", "demo.test")
	f.Edge = New(Config{App: u, Limits: limits, Certificate: func() *tls.Certificate { return leaf }, Log: quiet()})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.server, f.url = f.Edge.Server(l), "https://"+l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.server.Serve(); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { f.server.Close(); serving.Wait(); f.Edge.Close() })
	return f
}

var wide = Limits{Requests: 100, Streams: 100, BodyBytes: 1 << 20}

func (f *face) client(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.ca.Pool()}, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// dialPlain opens a bare connection to an http:// address.
func dialPlain(address string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(address, "http://"), patience)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

func read(t testing.TB, res *http.Response, err error) string {
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

func TestPassesRequestsUnchanged(t *testing.T) {
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-App", "yes")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s for=%s host=%s proto=%s real=%s fwd=%s body=%s", r.Proto, r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"),
			r.Header.Get("X-Forwarded-Host"), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Real-Ip"), r.Header.Get("Forwarded"), body)
	}), wide)
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			req, _ := http.NewRequest("PATCH", f.url+"/a%2Fb/../c?x=1;y=%zz", strings.NewReader("hello"))
			req.Host = "demo.test"
			for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded"} {
				req.Header.Set(h, "lie")
			}
			res, err := f.client(t, h2).Do(req)
			got := read(t, res, err)
			want := "HTTP/1.1 PATCH /a%2Fb/../c?x=1;y=%zz demo.test for=127.0.0.1 host=demo.test proto=https real= fwd= body=hello"
			if got != want || res.StatusCode != http.StatusTeapot || res.Header.Get("X-App") != "yes" || (res.ProtoMajor == 2) != h2 {
				t.Errorf("%s %d\n got %s\nwant %s", res.Proto, res.StatusCode, got, want)
			}
		})
	}
}

func TestTLSVersions(t *testing.T) {
	f := newFace(t, http.NotFoundHandler(), wide)
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", strings.TrimPrefix(f.url, "https://"), &tls.Config{RootCAs: f.ca.Pool(), MinVersion: version, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			c.Close()
		}
	}
}

func TestWebsocket(t *testing.T) {
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}), Limits{Requests: 1, Streams: 1, BodyBytes: 1 << 20})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	open := func() (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(ctx, "wss"+strings.TrimPrefix(f.url, "https")+"/ws", &websocket.DialOptions{HTTPClient: f.client(t, false), Subprotocols: []string{"echo"}})
	}
	c, _, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, size := range []int{0, 1, 125, 30000} {
		want := bytes.Repeat([]byte("x"), size)
		if err := c.Write(ctx, websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes back of %d: %v", len(got), size, err)
		}
	}
	if n := f.Count(); n.Streams != 1 || n.Requests != 0 {
		t.Errorf("count %+v", n)
	}
	if _, res, err := open(); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a second one where one is allowed: %v", err)
	}
	f.CutStreams()
	if _, _, err := c.Read(ctx); err == nil {
		t.Error("still open after the cut")
	}
	waitFor(t, func() bool { return !f.Count().Running() })
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("waited in vain")
}

func TestEventsAreNotHeldBack(t *testing.T) {
	next, over := make(chan string), make(chan struct{})
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for event := range next {
			fmt.Fprintf(w, "data: %s\n\n", event)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}), wide)
	go func() { next <- "first" }()
	res, err := f.client(t, true).Get(f.url)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(res.Body)
	for _, want := range []string{"first", "second"} {
		if want != "first" {
			next <- want
		}
		if !lines.Scan() || lines.Text() != "data: "+want || !lines.Scan() {
			t.Fatalf("%q %v, want %s", lines.Text(), lines.Err(), want)
		}
	}
	if n := f.Count(); n.Streams != 1 {
		t.Errorf("count %+v", n)
	}
	close(next)
	res.Body.Close()
	select {
	case <-over: // the application heard that the client left
	case <-time.After(patience):
		t.Error("the application was not told")
	}
}

func TestWhenTheApplicationDoesNotAnswer(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	f := faceTo(t, "http://"+nobody.Addr().String(), wide)
	req, _ := http.NewRequest("GET", f.url, nil)
	req.Header.Set("Accept", "text/html")
	res, err := f.client(t, true).Do(req)
	body := read(t, res, err)
	if res.StatusCode != http.StatusBadGateway || res.Header.Get("Retry-After") != "3" || !strings.Contains(body, "does not answer") || !strings.Contains(body, "<!doctype html>") {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
	res, err = f.client(t, false).Get(f.url)
	if body := read(t, res, err); body != "502 Bad Gateway\nThe application behind this site does not answer at the moment. Please try again in a moment.\n" {
		t.Errorf("to a program: %q", body)
	}
}

func TestWhenTheApplicationIsSlowOrBreaks(t *testing.T) {
	hang := make(chan struct{})
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/break" {
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Close()
			return
		}
		<-hang
	}), wide)
	defer close(hang)
	f.app.ResponseHeaderTimeout = 50 * time.Millisecond
	for path, code := range map[string]int{"/slow": http.StatusGatewayTimeout, "/break": http.StatusBadGateway} {
		res, err := f.client(t, false).Post(f.url+path, "text/plain", strings.NewReader("x"))
		if read(t, res, err); res.StatusCode != code || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, code)
		}
	}
}

func TestLimits(t *testing.T) {
	inside, hang := make(chan struct{}, 1), make(chan struct{})
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		inside <- struct{}{}
		<-hang
	}), Limits{Requests: 1, Streams: 1, BodyBytes: 10})
	client := f.client(t, false)
	for name, body := range map[string]io.Reader{"said": strings.NewReader("12345678901"), "not said": io.MultiReader(strings.NewReader("12345678901"))} {
		res, err := client.Post(f.url, "text/plain", body)
		if read(t, res, err); res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("too large, %s: %d", name, res.StatusCode)
		}
	}
	waitFor(t, func() bool { return !f.Count().Running() })
	var first sync.WaitGroup
	first.Go(func() { res, err := client.Get(f.url); read(t, res, err) })
	<-inside
	res, err := client.Get(f.url)
	if read(t, res, err); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("over the limit: %d", res.StatusCode)
	}
	close(hang)
	first.Wait()
	if n := f.Count(); n.Refused != 1 {
		t.Errorf("count %+v", n)
	}
}

func TestLeavingAsksClientsToGo(t *testing.T) {
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) }), wide)
	f.Leaving(true)
	res, err := f.client(t, false).Get(f.url)
	if read(t, res, err); !res.Close {
		t.Error("HTTP/1.1 answer without Connection: close")
	}
	h2 := f.client(t, true)
	for range 2 {
		res, err := h2.Get(f.url)
		if read(t, res, err); res.ProtoMajor != 2 {
			t.Fatal(res.Proto)
		}
	}
	waitFor(t, func() bool { return f.Count().Connections == 0 }) // GOAWAY made the h2 client leave too
}

func TestRedirect(t *testing.T) {
	tests := []struct {
		method, host, target, location string
		code                           int
	}{
		{"GET", "demo.test", "/a?b=%20c", "https://demo.test/a?b=%20c", 301},
		{"POST", "www.Demo.test:80", "/a", "https://www.demo.test/a", 308},
		{"GET", "198.18.0.10", "/", "https://198.18.0.10/", 301},
		{"GET", "[2001:db8::1]:80", "/", "https://[2001:db8::1]/", 301},
		{"GET", "evil.test", "/", "", 421},
		{"GET", "xdemo.test", "/", "", 421},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, tt.target, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		redirect([]string{"demo.test"}, "443")(w, r)
		if w.Code != tt.code || w.Header().Get("Location") != tt.location {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.host, w.Code, w.Header().Get("Location"), tt.code, tt.location)
		}
	}
}

// BenchmarkProxy compares the edge with the library's bare proxy over the same TLS and the same application. The client
// runs in the same process: the difference between the two counts, not the figure.
func BenchmarkProxy(b *testing.B) {
	app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1024)) })
	for _, h2 := range []bool{false, true} {
		b.Run(fmt.Sprintf("edge/h2=%v", h2), func(b *testing.B) {
			f := newFace(b, app, Limits{Requests: 10000, Streams: 10, BodyBytes: 1 << 20})
			get(b, f.client(b, h2), f.url)
		})
		b.Run(fmt.Sprintf("bare/h2=%v", h2), func(b *testing.B) {
			origin := httptest.NewServer(app)
			defer origin.Close()
			u, _ := url.Parse(origin.URL)
			kept := newTransport()
			defer kept.CloseIdleConnections()
			bare := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(u) }, Transport: kept})
			bare.EnableHTTP2 = h2
			bare.StartTLS()
			defer bare.Close()
			get(b, bare.Client(), bare.URL)
		})
	}
}

func get(b *testing.B, client *http.Client, url string) {
	b.ReportAllocs()
	for b.Loop() {
		res, err := client.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
