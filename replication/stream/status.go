package stream

import (
	"time"

	"popfleet/replication/oplog"
)

// States of a stream.
const (
	NeverConnected = "never_connected"
	Connected      = "connected"
	Stalled        = "stalled" // no heartbeat for the time of silence, or not connected any more
)

// Status is one peer as this node sees it. Unknown is nil.
type Status struct {
	Node       string
	State      string
	Version    byte // spoken with it
	RoundTrip  *time.Duration
	ClockAhead *time.Duration // its clock − ours
	Vector     oplog.Vector   // what it has
	Acked      oplog.Vector   // what it has of what this node served
	Behind     uint64         // entries that it has and this node has not
	Asked      []uint8        // origins pulled from it
	Queued     int64          // bytes that came and are not applied yet
	ServesIt   bool           // it pulls from here
	Epoch      uint64
	Error      string // why there is no connection
}

// Statuses is a snapshot, in the order of the configuration.
func (s *Set) Statuses() []Status {
	have := s.sink.Durable()
	var all []Status
	for _, p := range s.cfg.Peers {
		st := s.status(p.Node, have)
		st.Asked = s.plan.chosen(p.Node)
		all = append(all, st)
	}
	return all
}

func (s *Set) status(node string, have oplog.Vector) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pairs[node]
	st := Status{Node: node, State: NeverConnected, Acked: p.acked.Clone(), ServesIt: p.serves > 0, Epoch: p.hello.Epoch}
	if p.hello.Node != "" {
		st.State = Stalled
	}
	if p.err != nil {
		st.Error = p.err.Error()
	}
	if p.pull == nil {
		return st
	}
	heard, roundTrip, ahead := p.pull.link.measured()
	if !heard.IsZero() && time.Since(heard) <= s.cfg.Silence {
		st.State, st.RoundTrip, st.ClockAhead = Connected, &roundTrip, &ahead
	}
	p.pull.mu.Lock()
	defer p.pull.mu.Unlock()
	st.Version, st.Vector, st.Queued = p.pull.version, p.pull.vector.Clone(), s.cfg.Window-p.pull.credit
	for origin, seq := range st.Vector {
		if seq > have[origin] {
			st.Behind += seq - have[origin]
		}
	}
	return st
}
