package core

import (
	"slices"

	"popfleet/replication/crdt"
)

// boot takes up where the log ends, and looks in the backend for what came after.
func (m *Machine) boot(ev Boot) {
	for o, n := range ev.First {
		m.log[o].first, m.have[o] = n, n
	}
	for _, e := range ev.Log {
		if m.log[e.Origin] == nil || e.Seq != m.have[e.Origin]+1 {
			continue
		}
		m.record(e)
		m.remember(e)
		m.observe(e.Stamp)
	}
	m.durable, m.floor = m.have.Clone(), m.have.Clone()
	m.seq, m.used = m.have[m.cfg.Self], ev.Used
	for o, n := range ev.Checkpoint.Applied {
		m.applied[o] = min(n, m.have[o])
	}
	m.applied[m.cfg.Self] = m.seq
	m.observe(ev.Checkpoint.Reserved)
	m.reserved, m.forgotten = ev.Checkpoint.Reserved, ev.Checkpoint.Forgotten
	m.safe = ev.Checkpoint.Safe
	m.local = max(ev.Checkpoint.Local, m.safe) + localSpan
	m.kept = m.applied.Clone()
	m.phase = starting
	m.save()
}

// localSpan is more than the change numbers that are given out between two checkpoints.
const localSpan = 1 << 20

func (m *Machine) scanned(ev Scanned) {
	if m.phase == recovering {
		m.recover(ev.Slots)
		return
	}
	m.settle(ev.Slots)
}

// recover logs what the backend has of this node's and the log has not: the whole state of each such document, because
// what its last write added can't be told any more. Numbers in between belong to writes that did not happen.
func (m *Machine) recover(slots []ScannedSlot) {
	found := map[uint64]Entry{}
	newest := max(m.seq, m.used)
	for _, s := range slots {
		state := s.Slot.State()
		m.local = max(m.local, s.Slot.Doc.Local(), s.Slot.Tomb.Local())
		m.observe(state.Newest())
		if s.Slot.HasTomb {
			m.tombs = append(m.tombs, tomb{s.Key, s.Slot.Tomb.ID(), s.Slot.Tomb.Created(), s.Slot.Tomb.Local()})
		}
		seq := state.Seq(m.cfg.Self)
		if seq <= m.have[m.cfg.Self] || m.bug(NoRecoveryScan) {
			continue
		}
		newest = max(newest, seq)
		found[seq] = Entry{Origin: m.cfg.Self, Seq: seq, Key: s.Key, Delta: state.Portable(), Retry: state.Retry(), Deps: m.recovered(state), Forgot: m.forgotten}
	}
	for seq := m.seq + 1; seq <= newest; seq++ {
		e, ok := found[seq]
		if !ok {
			m.stats.Voided++
			e = Entry{Origin: m.cfg.Self, Seq: seq, Void: true}
		}
		e.Stamp = m.stamp(0)
		m.ready[seq] = e
		m.remember(e)
	}
	m.seq = newest
	m.phase = serving
	m.rescan = m.now.Mono + m.cfg.MaxTime + 1
	m.flush()
	m.sweepAll(slots)
	m.pump()
}

// recovered is what a recovered state depends on: all that its version vector names.
func (m *Machine) recovered(d crdt.Doc) crdt.Vector {
	v := m.deps()
	for _, dot := range d.Dots() {
		if dot.Origin != m.cfg.Self && dot.Origin != 0 {
			v[dot.Origin] = max(v[dot.Origin], dot.Seq)
		}
	}
	return v
}

// settle is the second look, when nothing of the run before can land any more.
func (m *Machine) settle(slots []ScannedSlot) {
	for _, s := range slots {
		m.local = max(m.local, s.Slot.Doc.Local(), s.Slot.Tomb.Local())
		if m.strange(s.Key, s.Slot) && !m.bug(NoRecoveryScan) {
			m.start(&job{key: s.Key, kind: reissue, slot: s.Slot})
		}
	}
	m.sweepAll(slots)
	m.settled = true
}

func (m *Machine) sweepAll(slots []ScannedSlot) {
	for _, s := range slots {
		if s.Slot.HasDoc && !s.Slot.State().Alive() {
			m.start(&job{key: s.Key, kind: sweep, slot: s.Slot})
		}
	}
}

// strange says that the document carries a write of this node's that its log does not know, or knows as something else:
// one that was given up and landed after all.
func (m *Machine) strange(k Key, s Slot) bool {
	if m.bug(TrustLateLanding) {
		return false
	}
	seq := s.State().Seq(m.cfg.Self)
	if seq <= m.log[m.cfg.Self].first {
		return false
	}
	if e, ok := m.log[m.cfg.Self].at(seq); ok {
		return e.Void || e.Key != k
	}
	if e, ok := m.ready[seq]; ok {
		return e.Void || e.Key != k
	}
	return !m.underway(seq, k)
}

func (m *Machine) underway(seq uint64, k Key) bool {
	for _, j := range m.jobs {
		if j.kind != peers && j.entry.Seq == seq && j.key == k {
			return true
		}
	}
	return false
}

// save keeps a checkpoint of what is certain.
func (m *Machine) save() {
	ahead := crdt.NewStamp(max(m.now.Wall, m.clock.Millis())+10*m.cfg.Beat, 0, m.cfg.Self)
	c := Checkpoint{Applied: m.applied.Clone(), Local: m.local, Safe: m.safeLocal(), Reserved: max(m.reserved, ahead), Forgotten: max(m.forgotten, m.cut())}
	if m.bug(CheckpointBeforeApply) {
		c.Applied = m.durable.Clone()
	}
	m.saves = append(m.saves, c)
	m.do(Save{Checkpoint: c})
}

func (m *Machine) saved() {
	if len(m.saves) == 0 {
		return
	}
	m.reserved = max(m.reserved, m.saves[0].Reserved)
	m.forgotten = max(m.forgotten, m.saves[0].Forgotten)
	m.kept.Raise(m.saves[0].Applied)
	m.saves = m.saves[1:]
	if m.phase == starting {
		m.phase = recovering
		m.do(Scan{After: m.safe})
	}
}

// safeLocal is the change number before the oldest write that is not in the log for good. Until the second scan it stays
// where the run before left it.
func (m *Machine) safeLocal() uint64 {
	if !m.settled {
		return m.safe
	}
	safe := m.local
	for _, j := range m.jobs {
		if j.kind == reissue || j.kind == sweep {
			return m.safe
		}
		if n := j.next.Local(); n > 0 && j.phase != acking {
			safe = min(safe, n-1)
		}
	}
	m.safe = safe
	return safe
}

type tomb struct {
	key     Key
	id      any
	created crdt.Stamp
	local   uint64
}

// forget drops the tombstones of deletes that everybody has.
func (m *Machine) forget() {
	m.tombs = slices.DeleteFunc(m.tombs, func(t tomb) bool {
		if t.created > m.forgotten || m.locks[t.key] != nil {
			return false
		}
		m.do(Forget{Key: t.key, ID: t.id, Expect: t.local})
		return true
	})
}
