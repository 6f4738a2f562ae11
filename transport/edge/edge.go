// Package edge is the face the transport shows to clients: HTTPS in front of the application on this node, and plain
// HTTP that sends everyone there. Requests, websockets and streams pass through unchanged but for the X-Forwarded
// headers, which are ours alone. It keeps nothing of a body, retries nothing the application may have seen, and answers
// by itself only when there is nobody to answer: then in plain words, with Retry-After.
package edge

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// Limits bound what clients may ask for.
type Limits struct {
	Requests  int64 // at once, streams not counted
	Streams   int64 // websockets and event streams at once
	BodyBytes int64 // of one request
}

// Timeouts of the protocol. None of them ends a stream that moves, or one that is silent: only headers, bodies that
// stall and answers that nobody reads.
const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	stallTimeout    = time.Minute
	appDialTimeout  = 2 * time.Second
	maxHeaderBytes  = 64 << 10
	appIdleConns    = 512
	appIdleTimeout  = time.Minute
	appFirstAnswer  = 2 * time.Minute
	maxH2Streams    = 250
	clientKeepAlive = 15 * time.Second
)

// Config is what an edge needs. Certificate is asked once per connection.
type Config struct {
	App         *url.URL
	Limits      Limits
	Certificate func() *tls.Certificate
	Log         *slog.Logger
}

// Edge is the proxy with its counters. Several servers, one after the other, may stand in front of it.
type Edge struct {
	cfg     Config
	proxy   http.Handler
	app     *http.Transport
	active  tracker
	leaving atomic.Bool
	stall   time.Duration // stallTimeout, but in tests
}

// New makes an edge.
func New(cfg Config) *Edge {
	e := &Edge{cfg: cfg, app: newTransport(), stall: stallTimeout}
	e.active.streams = map[*request]bool{}
	e.proxy = newProxy(cfg, e.app)
	return e
}

// Close lets go of the kept connections to the application.
func (e *Edge) Close() { e.app.CloseIdleConnections() }

// Leaving makes every answer ask its client to come back over a new connection (Connection: close, GOAWAY).
func (e *Edge) Leaving(yes bool) { e.leaving.Store(yes) }

// ServeHTTP passes one request on.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	q := &request{ResponseWriter: w, edge: e, control: http.NewResponseController(w), cancel: cancel, h1: r.ProtoMajor == 1}
	if q.h1 {
		q.deadline(0)
	}
	if !e.active.begin(e.cfg.Limits.Requests) {
		refuse(w, r, http.StatusServiceUnavailable, "This site is very busy right now.")
		return
	}
	defer q.end()
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		refuse(w, r, http.StatusMethodNotAllowed, "This site does not do that.")
		return
	}
	if r.ContentLength > e.cfg.Limits.BodyBytes {
		refuse(w, r, http.StatusRequestEntityTooLarge, "What you sent is larger than this site takes.")
		return
	}
	r = r.WithContext(context.WithValue(ctx, requestKey{}, q))
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &body{ReadCloser: http.MaxBytesReader(w, r.Body, e.cfg.Limits.BodyBytes), request: q}
	}
	e.proxy.ServeHTTP(q, r)
}

// Server is one HTTPS listener's life.
type Server struct {
	http  *http.Server
	abort context.CancelFunc
	l     net.Listener
}

// Server makes the HTTPS server for l. Serve it, then Shutdown or Close it.
func (e *Edge) Server(l net.Listener) *Server {
	ctx, abort := context.WithCancel(context.Background())
	tlsConfig := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.cfg.Certificate(), nil },
	}
	s := &http.Server{
		Handler: e, TLSConfig: tlsConfig, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState:   e.active.connection,
		ErrorLog:    slog.NewLogLogger(e.cfg.Log.Handler(), slog.LevelDebug), // clients' faults: many, and none of ours
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: maxH2Streams},
	}
	return &Server{http: s, abort: abort, l: l}
}

// Serve answers until Shutdown or Close; then it returns http.ErrServerClosed.
func (s *Server) Serve() error { return s.http.ServeTLS(s.l, "", "") }

// Shutdown closes the listener at once, tells idle clients to go, and waits for plain requests until ctx ends.
// Websockets are not waited for: ask Edge.Count.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close cuts everything that is left.
func (s *Server) Close() {
	s.abort()
	s.http.Close()
}
