package comments

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"popfleet/examples/comments/live"
	"popfleet/internal/control"
	"popfleet/internal/version"
)

// service is what the control socket sees.
type service struct {
	config Config
	hub    *live.Hub
	dog    *watchdog

	running, served atomic.Int64 // requests

	mu       sync.Mutex
	draining bool
}

func newService(c Config, hub *live.Hub, dog *watchdog) *service {
	return &service{config: c, hub: hub, dog: dog}
}

type detail struct {
	Address  string `json:"address"`
	Database string `json:"database"`
	Running  int64  `json:"running"` // requests, streams among them
	Served   int64  `json:"served"`
	Streams  int    `json:"streams"`
	Store    string `json:"store"` // "ok", or what is wrong
}

// Health is nil when the store answers, the indexes are there and nobody asked this node to leave.
func (s *service) Health() error {
	s.mu.Lock()
	draining := s.draining
	s.mu.Unlock()
	if draining {
		return errors.New("draining")
	}
	return s.dog.problem()
}

func (s *service) Status() control.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := detail{Address: s.config.Listen, Database: s.config.Database, Running: s.running.Load(), Served: s.served.Load(),
		Streams: s.hub.Watchers(), Store: "ok"}
	if err := s.dog.problem(); err != nil {
		d.Store = err.Error()
	}
	state := control.Serving
	switch {
	case s.draining && d.Running == 0:
		state = control.Drained
	case s.draining:
		state = control.Draining
	}
	return control.Status{Service: "app", Version: version.Version, State: state, Detail: d}
}

// Drain ends the streams and turns /healthz, by which the transport stops sending. What arrives all the same is still
// answered: a refusal would be a request lost.
func (s *service) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.hub.Drain()
}

func (s *service) Undrain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = false
	s.hub.Undrain()
}

// count knows what runs. The transport's own questions are left out: they go on while draining.
func (s *service) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			s.running.Add(1)
			defer func() { s.running.Add(-1); s.served.Add(1) }()
		}
		next.ServeHTTP(w, r)
	})
}
