package core

import (
	"popfleet/replication/crdt"
)

// origin is what the log holds of one origin: entries first+1 … first+len.
type origin struct {
	first   uint64
	entries []Entry
	busy    bool // one of its entries is being applied
}

func (o *origin) at(seq uint64) (Entry, bool) {
	if seq <= o.first || seq > o.first+uint64(len(o.entries)) {
		return Entry{}, false
	}
	return o.entries[seq-o.first-1], true
}

// flush appends the local writes that have all earlier ones before them: an origin's log has no gaps.
func (m *Machine) flush() {
	var batch []Entry
	for {
		e, ok := m.ready[m.have[m.cfg.Self]+1]
		if !ok {
			break
		}
		delete(m.ready, e.Seq)
		m.record(e)
		batch = append(batch, e)
	}
	m.append(batch)
}

func (m *Machine) record(e Entry) {
	o := m.log[e.Origin]
	o.entries = append(o.entries, e)
	m.have[e.Origin] = e.Seq
}

func (m *Machine) append(batch []Entry) {
	if len(batch) == 0 {
		return
	}
	marks := make([]mark, len(batch))
	for i, e := range batch {
		marks[i] = mark{e.Origin, e.Seq}
	}
	m.appends = append(m.appends, marks)
	m.do(Append{Entries: batch})
}

// appended: the oldest Append is durable. Its local writes are unlocked and on their way to the second log.
func (m *Machine) appended() {
	if len(m.appends) == 0 {
		return
	}
	marks := m.appends[0]
	m.appends = m.appends[1:]
	own := false
	for _, k := range marks {
		m.durable[k.origin] = k.seq
		if k.origin == m.cfg.Self {
			m.applied[k.origin], own = k.seq, true
		}
	}
	if own {
		m.logged(m.durable[m.cfg.Self])
		m.marked(m.cfg.Self)
		for _, p := range m.peers {
			m.push(p)
		}
	}
	if !own {
		m.greet(false)
	}
	m.pump()
}

// logged moves the local writes up to seq from the log to the second log.
func (m *Machine) logged(seq uint64) {
	for _, j := range m.sortedJobs() {
		if j.phase != logging || j.entry.Seq > seq {
			continue
		}
		m.remember(j.entry)
		j.phase, j.until = acking, m.now.Mono+m.cfg.AckTime
		m.unlock(j)
		m.acking = append(m.acking, j)
	}
	m.acknowledge()
}

// acknowledge answers the clients whose writes a second log has, or that need none.
func (m *Machine) acknowledge() {
	enough := m.paired()
	open := m.acking
	m.acking = m.acking[:0:0]
	for _, j := range open {
		if j.kind == clients && j.entry.Seq > enough {
			m.acking = append(m.acking, j)
			continue
		}
		m.answer(j, Acknowledged)
	}
}

// paired is up to which of its writes a node of the same PoP has this node's in its log; all of them if none is asked.
func (m *Machine) paired() uint64 {
	if m.cfg.Durability == Local || m.bug(AckBeforePair) {
		return ^uint64(0)
	}
	var best uint64
	alone := true
	for _, p := range m.peers {
		if p.PoP == m.pop() {
			best, alone = max(best, p.have[m.cfg.Self]), false
		}
	}
	if alone {
		return ^uint64(0)
	}
	return best
}

func (m *Machine) pop() string {
	for _, member := range m.cfg.Members {
		if member.ID == m.cfg.Self {
			return member.PoP
		}
	}
	return ""
}

func (m *Machine) answer(j *job, r Result) {
	delete(m.jobs, j.id)
	if j.kind != clients {
		return
	}
	token := j.entry.Deps.Clone()
	token[m.cfg.Self] = j.entry.Seq
	m.do(Reply{Ticket: j.req.Ticket, Result: r, Token: token, Doc: j.next.Visible()})
}

// session is a client's operation that is in the log.
type session struct {
	origin crdt.Origin
	seq    uint64
}

func retryKey(r crdt.Retry) string {
	if len(r.Session) == 0 {
		return ""
	}
	return string(r.Session) + string([]byte{byte(r.Number), byte(r.Number >> 8), byte(r.Number >> 16), byte(r.Number >> 24),
		byte(r.Number >> 32), byte(r.Number >> 40), byte(r.Statement), byte(r.Statement >> 8)})
}

func (m *Machine) remember(e Entry) {
	if k := retryKey(e.Retry); k != "" && !m.bug(ForgetSessions) {
		m.sessions[k] = session{e.Origin, e.Seq}
	}
}

// repeated answers a request that was done before.
func (m *Machine) repeated(r Request) bool {
	s, ok := m.sessions[retryKey(r.Retry)]
	if !ok {
		return false
	}
	m.stats.Retried++
	result := Acknowledged
	if s.origin == m.cfg.Self && s.seq > m.paired() {
		result = Unsure
	}
	e, _ := m.log[s.origin].at(s.seq)
	m.do(Reply{Ticket: r.Ticket, Result: result, Repeated: true, Stored: e.Result, Token: crdt.Vector{s.origin: s.seq}})
	return true
}
