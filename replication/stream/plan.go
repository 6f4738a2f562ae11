package stream

import (
	"maps"
	"slices"
	"sync"
	"time"

	"popfleet/replication/oplog"
)

// forgive is after how long a peer that could not serve an origin, or got nowhere with it, is asked again.
const forgive = 30 * time.Second

// plan decides which peer is asked for which origin: the origin itself while it is connected and gets on, else the
// connected peer that has most, and keeps to it. One at a time, so that an entry crosses a line once.
type plan struct {
	self   uint8
	direct map[uint8]string // origin → its node
	stall  time.Duration

	mu      sync.Mutex
	peers   map[string]*candidate
	sources map[uint8]*choice
}

// wanter is a connection that is told what is wanted of it; it must not block.
type wanter interface{ want(subscribe) }

type candidate struct {
	conn   wanter
	vector oplog.Vector
	until  map[uint8]time.Time // until when it is not asked for an origin
}

// choice is who is asked for an origin, and since when there was no progress.
type choice struct {
	node     string
	at       uint64
	since    time.Time
	patience time.Duration
}

func newPlan(self uint8, peers []Peer, stall time.Duration) *plan {
	p := &plan{self: self, direct: map[uint8]string{}, stall: stall, peers: map[string]*candidate{}, sources: map[uint8]*choice{}}
	for _, peer := range peers {
		p.direct[peer.Origin] = peer.Node
		p.sources[peer.Origin] = &choice{patience: stall}
	}
	return p
}

func (p *plan) joined(node string, conn wanter, v oplog.Vector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers[node] = &candidate{conn: conn, vector: v, until: map[uint8]time.Time{}}
}

func (p *plan) left(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.peers, node)
}

func (p *plan) heard(node string, v oplog.Vector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.peers[node]; c != nil {
		c.vector = v
	}
}

// cannot notes that a peer can't serve an origin.
func (p *plan) cannot(node string, origin uint8, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.peers[node]; c != nil {
		c.until[origin] = now.Add(forgive)
	}
}

// decide settles who is asked for what, and tells the connections whose part changed.
func (p *plan) decide(have oplog.Vector, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.discover()
	changed := map[string]bool{}
	for origin, c := range p.sources {
		p.watch(origin, c, have[origin], now)
		if next := p.best(origin, c.node, have[origin], now); next != c.node {
			changed[c.node], changed[next] = true, true
			c.node, c.since = next, now
		}
	}
	for node := range changed {
		if peer := p.peers[node]; peer != nil {
			peer.conn.want(p.wanted(node, have))
		}
	}
}

// discover takes up origins that only peers know of.
func (p *plan) discover() {
	for _, c := range p.peers {
		for origin := range c.vector {
			if origin != 0 && p.sources[origin] == nil {
				p.sources[origin] = &choice{patience: p.stall}
			}
		}
	}
}

// watch notes progress, and its lack: then the peer is not asked for a while, longer each time, since what is awaited may
// be an entry's cause, which another peer has.
func (p *plan) watch(origin uint8, c *choice, have uint64, now time.Time) {
	switch {
	case have != c.at:
		c.at, c.since, c.patience = have, now, p.stall
	case c.node == "" || !p.ahead(origin, have):
		c.since = now
	case now.Sub(c.since) >= c.patience:
		if peer := p.peers[c.node]; peer != nil {
			peer.until[origin] = now.Add(forgive)
		}
		c.since, c.patience = now, min(2*c.patience, time.Minute)
	}
}

// ahead is whether a peer has more of an origin.
func (p *plan) ahead(origin uint8, have uint64) bool {
	for _, c := range p.peers {
		if c.vector[origin] > have {
			return true
		}
	}
	return false
}

// best is the origin's own node, else who is asked already, else who has most; "" when nobody serves it. Own entries are
// asked for only where a peer has more of them than this node, which then has lost some.
func (p *plan) best(origin uint8, current string, have uint64, now time.Time) string {
	if origin == p.self && !p.ahead(origin, have) {
		return ""
	}
	serves := func(node string) bool {
		c := p.peers[node]
		return c != nil && !now.Before(c.until[origin])
	}
	if direct := p.direct[origin]; serves(direct) {
		return direct
	}
	if serves(current) {
		return current
	}
	best, most := "", uint64(0)
	for _, node := range slices.Sorted(maps.Keys(p.peers)) {
		if v := p.peers[node].vector[origin]; serves(node) && v > most {
			best, most = node, v
		}
	}
	return best
}

// wanted is all that is asked of one peer.
func (p *plan) wanted(node string, have oplog.Vector) subscribe {
	s := subscribe{map[uint8]uint64{}}
	for origin, c := range p.sources {
		if c.node == node {
			s.from[origin] = have[origin]
		}
	}
	return s
}

// chosen is which origins a peer is asked for.
func (p *plan) chosen(node string) (origins []uint8) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for origin, c := range p.sources {
		if c.node == node {
			origins = append(origins, origin)
		}
	}
	slices.Sort(origins)
	return origins
}
