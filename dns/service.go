package dns

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"

	"popfleet/dns/feed"
	"popfleet/internal/control"
)

// service is the running server: what it answers from, and what it tells about itself.
type service struct {
	cfg     Config
	log     *slog.Logger
	version string
	mmdb    string
	answers *answerer
	started time.Time
	queries counters
	changed chan struct{} // the map changed and is not kept yet

	mu sync.Mutex
	// guarded by mu
	state   string
	source  string    // where the map is from: config, state or feed
	feeders int       // open feed connections
	turn    uint64    // number of the feed connection the map came from
	heard   time.Time // when the last snapshot came
}

// counters count answers by what they said.
type counters struct{ udp, tcp, noerror, nxdomain, refused, other atomic.Uint64 }

func (c *counters) count(udp bool, rcode int) {
	if udp {
		c.udp.Add(1)
	} else {
		c.tcp.Add(1)
	}
	switch rcode {
	case wire.RcodeSuccess:
		c.noerror.Add(1)
	case wire.RcodeNameError:
		c.nxdomain.Add(1)
	case wire.RcodeRefused:
		c.refused.Add(1)
	default:
		c.other.Add(1)
	}
}

// ServeDNS answers one query.
func (s *service) ServeDNS(w wire.ResponseWriter, req *wire.Msg) {
	from, udp := sender(w.RemoteAddr())
	res := s.answers.answer(req, from, udp)
	s.queries.count(udp, res.Rcode)
	if err := w.WriteMsg(res); err != nil {
		s.log.Debug("answer not sent", "client", from, "error", err)
	}
}

func sender(a net.Addr) (netip.Addr, bool) {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap(), true
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap(), false
	default:
		return netip.Addr{}, false
	}
}

// Health is nil while Run runs: a listener that breaks ends the process.
func (s *service) Health() error { return nil }

// Detail is the service's part of GET /status.
type Detail struct {
	Zone     string            `json:"zone"`
	Serial   uint32            `json:"serial"`
	UptimeS  int64             `json:"uptime_s"`
	Map      MapDetail         `json:"map"`
	MMDB     string            `json:"mmdb,omitempty"`
	Queries  map[string]uint64 `json:"queries"`
	Feeders  int               `json:"feeders"`
	PerNodes []NodeDetail      `json:"nodes"`
}

// MapDetail says where the map in force came from.
type MapDetail struct {
	Source  string  `json:"source"` // config, state (kept over a restart) or feed
	From    string  `json:"from"`
	Version uint64  `json:"version"`
	AgeS    float64 `json:"age_s"` // since the last snapshot arrived; -1 before the first
	Serving int     `json:"serving"`
}

// NodeDetail is one node of the map in force.
type NodeDetail struct {
	Name      string       `json:"name"`
	State     string       `json:"state"`
	Addresses []netip.Addr `json:"addresses"`
}

// Status tells what is answered from.
func (s *service) Status() control.Status {
	z := s.answers.zone.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := Detail{Zone: s.cfg.Zone, Serial: z.Serial, UptimeS: int64(time.Since(s.started).Seconds()), MMDB: s.mmdb, Feeders: s.feeders,
		Map: MapDetail{Source: s.source, From: z.Map.From, Version: z.Map.Version, AgeS: -1}}
	if !s.heard.IsZero() {
		d.Map.AgeS = time.Since(s.heard).Seconds()
	}
	for _, n := range z.Map.Nodes {
		if n.State == feed.Serving {
			d.Map.Serving++
		}
		d.PerNodes = append(d.PerNodes, NodeDetail{n.Name, n.State, n.Addresses})
	}
	q := &s.queries
	d.Queries = map[string]uint64{"udp": q.udp.Load(), "tcp": q.tcp.Load(), "noerror": q.noerror.Load(),
		"nxdomain": q.nxdomain.Load(), "refused": q.refused.Load(), "other": q.other.Load()}
	return control.Status{Service: "dns", Version: s.version, State: s.state, Detail: d}
}

// Drain is done at once: no query runs longer than its answer takes. The server goes on answering, because resolvers
// hold the delegation long after anyone decides to leave.
func (s *service) Drain() { s.setState(control.Drained) }

// Undrain takes it back.
func (s *service) Undrain() { s.setState(control.Serving) }

func (s *service) setState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	s.log.Info("state changed", "state", state)
}
