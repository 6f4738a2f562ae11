// Package web is the application's HTTP face: a JSON API, streams of events and one page. Everything that arrives is
// bounded, checked and counted against its sender; everything that leaves says which node answered. It keeps nothing:
// when the store is away it answers 503 with Retry-After, and the page says so and tries again.
package web

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"time"

	"popfleet/examples/comments/board"
	"popfleet/examples/comments/live"
)

// Threads, Comments and Moderator are the parts of the store that the handlers call. They may block until ctx ends;
// [board.ErrNotFound] and [board.ErrConflict] mean what they say, any other error that the store is away.
type Threads interface {
	AddThread(ctx context.Context, t board.Thread) (board.Thread, error)
	Thread(ctx context.Context, id string) (board.Thread, error)
	Threads(ctx context.Context, from board.Cursor, limit int, hidden bool) ([]board.Thread, error)
	TouchThread(ctx context.Context, id string, at time.Time) (board.Thread, error)
}

// Comments of threads.
type Comments interface {
	AddComment(ctx context.Context, c board.Comment) (board.Comment, error)
	Comments(ctx context.Context, thread string, from board.Cursor, limit int) ([]board.Comment, error)
	Vote(ctx context.Context, id string, delta int) (board.Comment, error)
}

// Moderator hides and shows.
type Moderator interface {
	HideThread(ctx context.Context, id string, hidden bool) (board.Thread, error)
	HideComment(ctx context.Context, id string, hidden bool) (board.Comment, error)
}

// Store is all of it.
type Store interface {
	Threads
	Comments
	Moderator
}

// Limits of what one client may do. A client is an address; for IPv6 a /64, which is what one customer is given.
type Limits struct {
	WritesPerSecond float64
	WriteBurst      int
	Streams         int // open streams of one client
	RequestTimeout  time.Duration
}

// DefaultLimits suit people, also a few behind one address.
func DefaultLimits() Limits {
	return Limits{WritesPerSecond: 2, WriteBurst: 30, Streams: 16, RequestTimeout: 12 * time.Second}
}

// Options of a Server.
type Options struct {
	Node, Version string
	// ModeratorToken is what a moderator must show; empty: there are no moderators.
	ModeratorToken string
	Limits         Limits
	// Health is nil while the application can do its job; asked at each GET /healthz, so it must not block.
	Health func() error
	Log    *slog.Logger
}

// Server answers requests.
type Server struct {
	store   Store
	hub     *live.Hub
	options Options
	token   [sha256.Size]byte
	writes  *limiter
	streams *counter
	page    *page
}

// New makes the handler's state.
func New(store Store, hub *live.Hub, o Options) (*Server, error) {
	p, err := newPage(o.Node, o.Version)
	if err != nil {
		return nil, err
	}
	return &Server{store: store, hub: hub, options: o, token: sha256.Sum256([]byte(o.ModeratorToken)),
		writes:  newLimiter(o.Limits.WritesPerSecond, o.Limits.WriteBurst),
		streams: newCounter(o.Limits.Streams), page: p}, nil
}

// Handler routes, behind what holds for every request.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	read := func(pattern string, h endpoint) { mux.Handle(pattern, s.json(h)) }
	write := func(pattern string, h endpoint) { mux.Handle(pattern, s.limited(s.json(h))) }
	read("GET /api/about", s.about)
	read("GET /api/threads", s.listThreads)
	read("GET /api/threads/{thread}", s.getThread)
	read("GET /api/threads/{thread}/comments", s.listComments)
	write("POST /api/threads", s.addThread)
	write("POST /api/threads/{thread}/comments", s.addComment)
	write("POST /api/comments/{comment}/votes", s.vote)
	write("PUT /api/threads/{thread}/hidden", s.moderators(s.hideThread))
	write("PUT /api/comments/{comment}/hidden", s.moderators(s.hideComment))
	mux.HandleFunc("GET /api/events", s.threadEvents)
	mux.HandleFunc("GET /api/threads/{thread}/events", s.commentEvents)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.Handle("/api/", s.json(nowhere))
	s.page.routes(mux)
	// By Sec-Fetch-Site, or Origin against Host: a page of another site can't write in a visitor's name.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusForbidden, failure{Error: "requests from other sites are not accepted"})
	}))
	return s.always(guard.Handler(mux))
}

func nowhere(*http.Request) (int, any, error) { return 0, nil, board.ErrNotFound }

// policy lets the page load from its own origin and nowhere else, and nobody put it into a frame.
const policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// always sets what every answer carries.
func (s *Server) always(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Fleet-Node", s.options.Node)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := s.options.Health(); err != nil {
		reply(w, http.StatusServiceUnavailable, health{Node: s.options.Node, Reason: err.Error()})
		return
	}
	reply(w, http.StatusOK, health{OK: true, Node: s.options.Node})
}

type health struct {
	OK     bool   `json:"ok"`
	Node   string `json:"node"`
	Reason string `json:"reason,omitempty"`
}
