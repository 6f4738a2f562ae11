package mesh

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"popfleet/dns/feed"
)

// Status is what is known of one peer.
type Status struct {
	Node     string  `json:"node"`
	PoP      string  `json:"pop"`
	Address  string  `json:"address"`
	State    string  `json:"state"`
	AppOK    bool    `json:"app_ok"`
	Load     Load    `json:"load"`
	Version  string  `json:"version,omitempty"`
	RTTms    float64 `json:"rtt_ms"`              // 0: not measured
	LastSeen string  `json:"last_seen,omitempty"` // RFC 3339; empty: never
	SilentS  float64 `json:"silent_s"`            // -1: never heard
	Out      bool    `json:"out"`                 // the stream we dialed stands
	In       bool    `json:"in"`                  // the stream the peer dialed stands
	Problem  string  `json:"problem,omitempty"`   // why we can't reach it
}

// Status returns all peers by name.
func (m *Mesh) Status() []Status {
	out := make([]Status, 0, len(m.peers))
	for _, p := range m.peers {
		out = append(out, p.status())
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Node, b.Node) })
	return out
}

func (p *peer) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Node: p.Node, PoP: p.PoP, Address: p.Address, State: feed.Dead, SilentS: -1, Problem: p.problem,
		Load: p.beat.Load, Version: p.beat.Version, RTTms: float64(p.rtt.Microseconds()) / 1000}
	if p.alive {
		s.State, s.AppOK = p.beat.State, p.beat.AppOK
	}
	if !p.heard.IsZero() {
		s.LastSeen, s.SilentS = p.heard.UTC().Format(time.RFC3339Nano), time.Since(p.heard).Seconds()
	}
	for k := range p.links {
		s.Out, s.In = s.Out || k.dialed, s.In || !k.dialed
	}
	return s
}

// Nodes returns every peer as the map has it: a peer never heard of is dead at the address it was configured with.
func (m *Mesh) Nodes() []feed.Node {
	out := make([]feed.Node, 0, len(m.peers))
	for _, p := range m.peers {
		out = append(out, p.node())
	}
	slices.SortFunc(out, func(a, b feed.Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (p *peer) node() feed.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard.IsZero() {
		n := feed.Node{Name: p.Node, PoP: p.PoP, State: feed.Dead}
		host, _, _ := net.SplitHostPort(p.Address)
		if a, err := netip.ParseAddr(host); err == nil && feed.Routable(a) {
			n.Addresses = []netip.Addr{a}
		}
		return n
	}
	n := p.beat.feedNode()
	if !p.alive {
		n.State = feed.Dead
	}
	return n
}

// AllHeard says whether every peer was heard of at least once.
func (m *Mesh) AllHeard() bool {
	for _, p := range m.peers {
		p.mu.Lock()
		never := p.heard.IsZero()
		p.mu.Unlock()
		if never {
			return false
		}
	}
	return true
}
