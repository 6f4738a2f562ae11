package core

import "popfleet/replication/crdt"

// promise says of this node's writes: all up to this stamp have numbers up to this one. It stays within what the
// checkpoint reserved, so that a restart with a clock that stepped back keeps it.
func (m *Machine) promise() {
	s := crdt.NewStamp(m.now.Wall, 0, m.cfg.Self)
	if m.clock > s {
		s = m.clock
	}
	if !m.bug(PromiseBeyondReserve) {
		s = min(s, m.reserved)
	}
	if s <= m.promises[m.cfg.Self].Stamp || m.clock > s {
		return
	}
	m.clock = s
	m.promises[m.cfg.Self] = Promise{m.cfg.Self, m.seq, s}
	m.marked(m.cfg.Self)
}

// marked looks whether an origin's promise is fulfilled here, and moves the watermark.
func (m *Machine) marked(o crdt.Origin) {
	if pr, ok := m.promises[o]; ok && m.applied[o] >= pr.Seq {
		m.marks[o] = max(m.marks[o], pr.Stamp)
	}
	if !m.settled {
		return // a write of the run before may still land: what it did not know must not be forgotten anywhere
	}
	low := m.marks[m.cfg.Self]
	for _, p := range m.peers {
		low = min(low, m.marks[p.ID])
	}
	m.low = max(m.low, low)
	m.confirm()
}

// confirm takes a peer's watermark as good once what it had written by then is applied here: a write that it made before
// it knew of a delete can't come any more.
func (m *Machine) confirm() {
	for _, p := range m.peers {
		if p.pendingLow > 0 && (m.applied[p.ID] >= p.pendingSeq || m.bug(ForgetTooEarly)) {
			p.low, p.pendingLow = p.pendingLow, 0
		}
	}
}

// cut is the stamp up to which everything is everywhere, and nothing that did not know it is on its way.
func (m *Machine) cut() crdt.Stamp {
	cut := m.low
	for i, p := range m.peers {
		if i == 0 && m.bug(ForgetWithoutOne) {
			continue
		}
		cut = min(cut, p.low)
	}
	return cut
}
