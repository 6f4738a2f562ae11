package front

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdg-go/scram"

	"popfleet/replication/wire"
)

// Counters are what has passed since the start.
type Counters struct {
	Clients    int64 `json:"clients"` // connected now
	InFlight   int64 `json:"in_flight"`
	Requests   int64 `json:"requests"`
	Failed     int64 `json:"failed"` // ended in an error, not counting those a handler put into its reply
	Malformed  int64 `json:"malformed"`
	Refused    int64 `json:"refused"` // beyond MaxClients
	AuthFailed int64 `json:"auth_failed"`
}

// Server serves clients.
type Server struct {
	config  Config
	handler Handler
	log     *slog.Logger
	codec   *wire.Codec
	scram   *scram.Server
	secret  []byte            // for the keys of users that don't exist
	names   map[string]string // commands' names, so that reading one costs no memory

	clients, inFlight, requests, failed, malformed, refused, authFailed, lastID atomic.Int64

	mu sync.Mutex
	// open are the connections that a drain has to reach.
	open     map[*conn]struct{}
	draining bool
}

// New makes a server; it accepts nothing until Serve.
func New(config Config, handler Handler, log *slog.Logger) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, handler: handler, log: log, codec: codec, secret: make([]byte, 32), names: map[string]string{}, open: map[*conn]struct{}{}}
	rand.Read(s.secret)
	if s.scram, err = scram.SHA256.NewServer(s.lookup); err != nil {
		return nil, fmt.Errorf("make SCRAM server: %w", err)
	}
	for _, name := range []string{"find", "getMore", "killCursors", "aggregate", "count", "distinct", "insert", "update", "delete",
		"findAndModify", "findandmodify", "bulkWrite", "endSessions", "hello", "ping"} {
		s.names[name] = name
	}
	return s, nil
}

// Counters is a snapshot.
func (s *Server) Counters() Counters {
	return Counters{Clients: s.clients.Load(), InFlight: s.inFlight.Load(), Requests: s.requests.Load(), Failed: s.failed.Load(),
		Malformed: s.malformed.Load(), Refused: s.refused.Load(), AuthFailed: s.authFailed.Load()}
}

// Serve accepts until ctx ends, then lets commands on their way finish for DrainTimeout, and returns when every
// connection has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var clients sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := s.accept(ctx, work, l, &clients)
	s.drain()
	over := time.AfterFunc(s.config.DrainTimeout, func() { cancel(); s.closeAll() })
	defer over.Stop()
	clients.Wait()
	return err
}

func (s *Server) accept(ctx, work context.Context, l net.Listener, clients *sync.WaitGroup) error {
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept a client: %w", err)
		}
		if s.clients.Load() >= int64(s.config.MaxClients) {
			if s.refused.Add(1) == 1 { // once: a flood of connections must not become a flood of lines
				s.log.Warn("connection refused", "reason", "too many clients", "limit", s.config.MaxClients)
			}
			c.Close()
			continue
		}
		s.clients.Add(1)
		clients.Go(func() {
			defer s.clients.Add(-1)
			s.serve(work, c)
		})
	}
}

func (s *Server) serve(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	c := newConn(s, nc)
	s.mu.Lock()
	s.open[c] = struct{}{}
	leaving := s.draining
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
	}()
	if leaving {
		return
	}
	var bad *wire.FormatError
	if err := c.loop(ctx); errors.As(err, &bad) {
		s.malformed.Add(1)
		s.log.Warn("connection closed", "client", nc.RemoteAddr().String(), "reason", bad.Error())
	}
}

// drain ends connections at once where nothing is on its way, the others after their reply.
func (s *Server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for c := range s.open {
		c.leave()
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.net.Close()
	}
}
