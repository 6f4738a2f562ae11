package core

import (
	"errors"

	"popfleet/replication/crdt"
)

// ErrNotServing is what requests are told before recovery is over.
var ErrNotServing = errors.New("replicator is recovering")

// ErrDuplicate is what a write is told that a unique index refuses.
var ErrDuplicate = errors.New("duplicate key")

func (m *Machine) request(r Request) {
	if m.phase != serving {
		m.do(Reply{Ticket: r.Ticket, Result: Failed, Err: ErrNotServing})
		return
	}
	if m.repeated(r) {
		return
	}
	m.start(&job{key: r.Key, kind: clients, req: r})
}

func (m *Machine) read(r Read) {
	if m.phase != serving {
		m.do(Reply{Ticket: r.Ticket, Result: Failed, Err: ErrNotServing})
		return
	}
	if !m.applied.Covers(r.After) {
		m.reads = append(m.reads, r)
		return
	}
	m.last++
	j := &job{id: m.last, key: r.Key, kind: reader, req: Request{Ticket: r.Ticket, ID: r.ID}}
	m.jobs[j.id] = j
	m.load(j, loading)
}

// wake serves the reads whose tokens have arrived.
func (m *Machine) wake() {
	waiting := m.reads
	m.reads = m.reads[:0:0]
	for _, r := range waiting {
		m.read(r)
	}
}

// expire answers those who waited long enough.
func (m *Machine) expire() {
	waiting := m.reads
	m.reads = m.reads[:0:0]
	for _, r := range waiting {
		if m.now.Mono < r.Until {
			m.reads = append(m.reads, r)
			continue
		}
		m.do(Reply{Ticket: r.Ticket, Result: TooEarly, Origin: m.missing(r.After)})
	}
	open := m.acking
	m.acking = m.acking[:0:0]
	for _, j := range open {
		if m.now.Mono < j.until {
			m.acking = append(m.acking, j)
			continue
		}
		m.answer(j, Unsure)
	}
}

func (m *Machine) missing(v crdt.Vector) crdt.Origin {
	var worst crdt.Origin
	for _, p := range m.peers {
		if v[p.ID] > m.applied[p.ID] {
			worst = p.ID
		}
	}
	return worst
}

func (m *Machine) loaded(ev Loaded) {
	j := m.jobs[ev.Job]
	if j == nil || j.phase != loading && j.phase != verifying {
		return
	}
	j.slot = ev.Slot
	switch {
	case j.kind == reader:
		delete(m.jobs, j.id)
		m.do(Reply{Ticket: j.req.Ticket, Result: Acknowledged, Token: m.seen(), Doc: j.slot.State().Visible()})
	case j.phase == verifying:
		m.verify(j)
	default:
		m.evaluate(j)
	}
}

// evaluate decides what to write, now that the document is read and locked.
func (m *Machine) evaluate(j *job) {
	if j.kind != reissue && m.strange(j.key, j.slot) {
		m.yield(j, &job{kind: reissue})
		return
	}
	switch j.kind {
	case clients:
		m.change(j)
	case peers:
		m.merge(j)
	case reissue:
		m.again(j)
	case sweep:
		m.roll(j)
	}
}

// change turns a client's request into a delta.
func (m *Machine) change(j *job) {
	if m.repeated(j.req) {
		m.finish(j)
		return
	}
	state := j.slot.State()
	c := j.req.Change(state.Visible())
	if c.Err != nil || c.Kind == Nothing {
		reply := Reply{Ticket: j.req.Ticket, Result: Unchanged, Token: m.seen(), Doc: state.Visible()}
		if c.Err != nil {
			reply.Result, reply.Err = Refused, c.Err
		}
		m.do(reply)
		m.finish(j)
		return
	}
	w := crdt.Write{Origin: m.cfg.Self, Seq: m.seq + 1, Stamp: m.stamp(state.Newest())}
	delta, err := deltaOf(m.mutate(state, &c), w, c)
	if err != nil {
		m.do(Reply{Ticket: j.req.Ticket, Result: Refused, Err: err})
		m.finish(j)
		return
	}
	m.seq = w.Seq
	j.entry = Entry{Origin: m.cfg.Self, Seq: w.Seq, Stamp: w.Stamp, Key: j.key, Delta: delta, Deps: m.deps(), Forgot: m.forgotten, Retry: j.req.Retry, Result: c.Result}
	m.put(j, state.Merge(delta).WithRetry(j.req.Retry))
}

func deltaOf(state crdt.Doc, w crdt.Write, c Change) (crdt.Delta, error) {
	switch c.Kind {
	case Insert:
		return state.Insert(w, c.Doc)
	case Delete:
		return state.Delete(w)
	}
	return state.Apply(w, c.Ops)
}

// deps is what this node's next write may depend on. Its own earlier writes go without saying.
func (m *Machine) deps() crdt.Vector {
	v := make(crdt.Vector, len(m.peers))
	for _, p := range m.peers {
		if n := max(m.applied[p.ID], m.floor[p.ID]); n > 0 {
			v[p.ID] = n
		}
	}
	return v
}

// seen is what a reader may have seen here.
func (m *Machine) seen() crdt.Vector {
	v := m.deps()
	v[m.cfg.Self] = m.applied[m.cfg.Self]
	return v
}

// again logs, under a new number, a document that landed after it had been given up.
func (m *Machine) again(j *job) {
	m.stats.Reissued++
	state := j.slot.State()
	m.seq++
	next := state.Touched(m.cfg.Self, m.seq)
	j.entry = Entry{Origin: m.cfg.Self, Seq: m.seq, Stamp: m.stamp(state.Newest()), Key: j.key,
		Delta: next.Portable(), Deps: m.deps(), Forgot: m.forgotten, Retry: state.Retry()}
	m.put(j, next)
}
