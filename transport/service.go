package transport

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"popfleet/dns/feed"
	"popfleet/internal/control"
	"popfleet/transport/certs"
	"popfleet/transport/edge"
	"popfleet/transport/mesh"
)

// failing is the state of a transport whose application does not answer. The rest are internal/control's.
const failing = "failing"

// service is the running transport: what it holds together, and what it tells about itself.
type service struct {
	cfg     Config
	log     *slog.Logger
	version string
	keys    *certs.Store
	edge    *edge.Edge
	mesh    *mesh.Mesh
	app     *prober
	feeder  *feeder
	started time.Time
	orders  chan struct{} // the ordered phase changed; live looks at it

	mu sync.Mutex
	// guarded by mu
	phase string // serving, draining, drained
	full  bool
	cut   edge.Count // what ran when the last drain was over
}

// Drain begins leaving: peers and dns are told now, clients are asked to go with every answer.
func (s *service) Drain() {
	s.mu.Lock()
	begin := s.phase == control.Serving
	s.mu.Unlock()
	if begin {
		s.order(control.Draining)
	}
}

// Undrain takes it back, at whatever point it is.
func (s *service) Undrain() { s.order(control.Serving) }

func (s *service) order(phase string) {
	s.enter(phase)
	select {
	case s.orders <- struct{}{}:
	default:
	}
}

// ordered is what was asked for last.
func (s *service) ordered() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == control.Drained {
		return control.Draining
	}
	return s.phase
}

func (s *service) enter(phase string) {
	s.mu.Lock()
	was := s.phase
	s.phase = phase
	s.mu.Unlock()
	if was == phase {
		return
	}
	s.edge.Leaving(phase != control.Serving)
	s.log.Info("state changed", "from", was, "to", phase)
	s.announce()
}

// drained ends a drain, unless it was taken back in the meantime.
func (s *service) drained(left edge.Count) {
	s.mu.Lock()
	s.cut = left
	still := s.phase == control.Draining
	s.mu.Unlock()
	if still {
		s.enter(control.Drained)
	}
}

// announce tells everyone that our own state changed.
func (s *service) announce() {
	s.mesh.Announce()
	s.wake()
}

// wake tells dns that the map changed.
func (s *service) wake() {
	select {
	case s.feeder.changed <- struct{}{}:
	default:
	}
}

// state is what this node says of itself, in the words of the map.
func (s *service) state() string {
	running := s.edge.Count().Requests
	problem := s.Health()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch limit := s.cfg.Limits.Requests; {
	case running >= limit:
		s.full = true
	case running < limit*4/5:
		s.full = false
	}
	switch {
	case s.phase != control.Serving:
		return feed.Draining
	case problem != nil:
		return feed.Failing
	case s.full:
		return feed.Full
	default:
		return feed.Serving
	}
}

// beat is what the mesh says of us every second.
func (s *service) beat() mesh.Beat {
	c := s.edge.Count()
	return mesh.Beat{PoP: s.cfg.PoP, Addresses: s.cfg.Addresses, Place: s.cfg.Place, State: s.state(), AppOK: s.app.problem() == nil,
		Load: mesh.Load{Requests: c.Requests, Streams: c.Streams, Connections: c.Connections}, Version: s.version}
}

// nodes is the whole map, and whether every peer was heard of once and the application asked.
func (s *service) nodes() ([]feed.Node, bool) {
	own := feed.Node{Name: s.cfg.Node, PoP: s.cfg.PoP, State: s.state(), Addresses: s.cfg.Addresses, Lat: s.cfg.Place.Lat, Lon: s.cfg.Place.Lon}
	return append([]feed.Node{own}, s.mesh.Nodes()...), s.mesh.AllHeard() && own.State != feed.Failing
}

// Health is nil while clients can be served.
func (s *service) Health() error { return errors.Join(s.app.problem(), s.keys.Ended()) }

// Detail is the service's part of GET /status.
type Detail struct {
	State       string        `json:"state"` // as peers and dns see it
	UptimeS     int64         `json:"uptime_s"`
	Running     edge.Count    `json:"running"`
	Cut         *edge.Count   `json:"cut,omitempty"` // what still ran when the last drain ended
	App         App           `json:"app"`
	Certificate Certificate   `json:"certificate"`
	DNSFed      bool          `json:"dns_fed"`
	Peers       []mesh.Status `json:"peers"`
	Limits      Limits        `json:"limits"`
}

// App is how the application is.
type App struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// Certificate is the one shown to clients.
type Certificate struct {
	NotAfter time.Time `json:"not_after"`
	Names    []string  `json:"names"`
}

// Status tells all of it.
func (s *service) Status() control.Status {
	d := Detail{State: s.state(), UptimeS: int64(time.Since(s.started).Seconds()), Running: s.edge.Count(), App: App{OK: true},
		Certificate: Certificate{s.keys.NotAfter(), s.keys.Certificate().Leaf.DNSNames}, DNSFed: s.feeder.connected.Load(),
		Peers: s.mesh.Status(), Limits: s.cfg.Limits}
	problem := s.app.problem()
	if problem != nil {
		d.App = App{Reason: problem.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := control.Status{Service: "transport", Version: s.version, State: s.phase, Detail: &d}
	if s.phase == control.Serving && s.Health() != nil {
		st.State = failing
	}
	if s.phase == control.Drained {
		cut := s.cut
		d.Cut = &cut
	}
	return st
}
