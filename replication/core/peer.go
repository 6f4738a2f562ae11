package core

import "popfleet/replication/crdt"

// peer is what this node knows of another.
type peer struct {
	Member
	have  crdt.Vector // durable in its log, as it last said
	sent  crdt.Vector // sent, perhaps lost
	stuck crdt.Vector // have of the beat before
	// The watermark it announced, and the one that counts: when everything that it wrote before is here too.
	pendingLow crdt.Stamp
	pendingSeq uint64
	low        crdt.Stamp
}

func (m *Machine) peer(id crdt.Origin) *peer {
	for _, p := range m.peers {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// beat tells every peer what is here, and sends again what seems lost.
func (m *Machine) beat() {
	m.promise()
	for _, p := range m.peers {
		m.resend(p)
	}
	m.greet(true)
	m.forget()
	m.trim()
}

// trim drops from the log what every member has, what no restart here would apply again, and what no client will ask for.
func (m *Machine) trim() {
	if !m.settled {
		return
	}
	for _, member := range m.cfg.Members {
		id, o := member.ID, m.log[member.ID]
		upTo := min(m.kept[id], m.durable[id])
		for _, p := range m.peers {
			if p.ID != id {
				upTo = min(upTo, p.have[id])
			}
		}
		n := 0
		for n < len(o.entries) && o.entries[n].Seq <= upTo && o.entries[n].Stamp.Millis()+m.cfg.Keep < m.low.Millis() {
			delete(m.sessions, retryKey(o.entries[n].Retry))
			n++
		}
		if n > 0 {
			o.first, o.entries = o.first+uint64(n), o.entries[n:]
			m.do(Trim{Origin: id, Seq: o.first})
		}
	}
}

// greet sends this node's state: to all, or to the nodes of the same PoP, which are waited for.
func (m *Machine) greet(all bool) {
	s := State{Have: m.lasting().Clone(), Applied: m.applied.Clone(), Low: m.low, Seq: m.seq, Clock: m.clock}
	for _, o := range m.cfg.Members {
		if pr, ok := m.promises[o.ID]; ok {
			s.Promises = append(s.Promises, pr)
		}
	}
	for _, p := range m.peers {
		if all || p.PoP == m.pop() {
			m.do(Send{To: p.ID, Message: s})
		}
	}
}

// lasting is what a power cut here can't take.
func (m *Machine) lasting() crdt.Vector {
	if m.bug(AnnounceBeforeDurable) {
		return m.have
	}
	return m.durable
}

// push sends a peer this node's own writes that it was not sent yet.
func (m *Machine) push(p *peer) { m.send(p, []crdt.Origin{m.cfg.Self}) }

// resend starts again where a peer stands still. What it lacks of others' writes is sent too: they may not reach it.
func (m *Machine) resend(p *peer) {
	var lacking []crdt.Origin
	for _, member := range m.cfg.Members {
		o := member.ID
		if o == p.ID || p.have[o] >= m.durable[o] {
			continue
		}
		if was, ok := p.stuck[o]; !ok || was != p.have[o] {
			continue
		}
		p.sent[o] = p.have[o]
		lacking = append(lacking, o)
	}
	if p.stuck == nil {
		p.stuck = crdt.Vector{}
	}
	for _, member := range m.cfg.Members {
		p.stuck[member.ID] = p.have[member.ID]
	}
	m.send(p, lacking)
}

// send sends a peer what is durable here of some origins and was not sent. Nothing that a power cut could take back is
// ever sent.
func (m *Machine) send(p *peer, origins []crdt.Origin) {
	var batch []Entry
	for _, o := range origins {
		p.sent[o] = max(p.sent[o], p.have[o], m.log[o].first)
		for p.sent[o] < m.durable[o] && len(batch) < m.cfg.Batch {
			e, ok := m.log[o].at(p.sent[o] + 1)
			if !ok {
				break
			}
			batch = append(batch, e)
			p.sent[o]++
		}
	}
	if len(batch) > 0 {
		m.do(Send{To: p.ID, Message: Batch{Entries: batch}})
	}
}

func (m *Machine) received(ev Received) {
	p := m.peer(ev.From)
	if p == nil || m.phase != serving {
		return
	}
	switch msg := ev.Message.(type) {
	case Batch:
		m.take(msg)
	case State:
		m.learn(p, msg)
	}
}

// take logs the entries that follow what the log has. Others come again.
func (m *Machine) take(b Batch) {
	var batch []Entry
	for _, e := range b.Entries {
		if m.log[e.Origin] == nil || e.Origin == m.cfg.Self || e.Seq != m.have[e.Origin]+1 {
			continue
		}
		if m.ahead(e.Stamp) {
			m.stats.Quarantined++
			continue
		}
		m.record(e)
		m.remember(e)
		batch = append(batch, e)
	}
	m.append(batch)
	if m.bug(AnnounceBeforeDurable) {
		m.greet(false)
	}
	m.pump()
}

// ahead says that a clock is too far in the future to be followed: it would drag this node's along.
func (m *Machine) ahead(s crdt.Stamp) bool {
	return s.Millis()-max(m.now.Wall, m.clock.Millis()) > m.cfg.MaxAhead
}

func (m *Machine) learn(p *peer, s State) {
	if m.ahead(s.Clock) {
		m.stats.Quarantined++
		return
	}
	m.observe(s.Clock)
	p.have.Raise(s.Have)
	for _, pr := range s.Promises {
		if pr.Origin != m.cfg.Self && pr.Stamp > m.promises[pr.Origin].Stamp {
			m.promises[pr.Origin] = pr
			m.marked(pr.Origin)
		}
	}
	if p.pendingLow == 0 && s.Low > p.low {
		p.pendingLow, p.pendingSeq = s.Low, s.Seq
	}
	m.confirm()
	m.acknowledge()
	m.push(p)
}
