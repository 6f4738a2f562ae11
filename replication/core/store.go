package core

import "popfleet/replication/crdt"

// put writes a state to the backend: a document in one conditional write; a deletion as a tombstone first, then the
// removal. The other order would lose the deletion in a crash between the two.
func (m *Machine) put(j *job, next crdt.Doc) {
	m.local++
	if next.Alive() && !j.slot.HasTomb {
		next = next.Forget(m.forgotten) // beside a tombstone the two must count alike
	}
	j.next = next.Compact(m.forgotten).WithLocal(m.local)
	j.sent = m.now.Mono
	switch {
	case j.next.Alive():
		j.phase = storing
		m.do(Store{Job: j.id, Key: j.key, Doc: j.next, Expect: m.expect(j.slot.HasDoc, j.slot.Doc)})
	case m.bug(TombstoneAfterDelete) && j.slot.HasDoc:
		j.phase = removing
		m.do(Remove{Job: j.id, Key: j.key, ID: j.docID(), Expect: j.slot.Doc.Local()})
	default:
		j.phase = burying
		m.do(Bury{Job: j.id, Key: j.key, Tomb: j.next, Expect: m.expect(j.slot.HasTomb, j.slot.Tomb)})
	}
}

// Anything is the Expect of a write without a condition.
const Anything = ^uint64(0)

func (m *Machine) expect(there bool, d crdt.Doc) uint64 {
	switch {
	case m.bug(NoGuard):
		return Anything
	case there:
		return d.Local()
	}
	return 0
}

func (m *Machine) done(ev Done) {
	j := m.jobs[ev.Job]
	if j == nil || j.phase != storing && j.phase != burying && j.phase != removing {
		return
	}
	switch ev.Status {
	case OK:
		m.advance(j)
	case Timeout:
		j.phase = uncertain
	case Mismatch:
		m.stale(j)
	case Duplicate:
		m.refused(j)
	}
}

// advance goes on after a write that landed.
func (m *Machine) advance(j *job) {
	if j.phase == removing && m.bug(TombstoneAfterDelete) && j.kind != sweep {
		j.phase, j.slot.HasDoc = burying, false
		m.do(Bury{Job: j.id, Key: j.key, Tomb: j.next, Expect: m.expect(j.slot.HasTomb, j.slot.Tomb)})
		return
	}
	if j.phase == burying {
		m.tombs = append(m.tombs, tomb{j.key, j.next.ID(), j.next.Created(), j.next.Local()})
		if j.slot.HasDoc {
			m.remove(j)
			return
		}
	}
	m.landed(j)
}

func (m *Machine) remove(j *job) {
	j.phase, j.sent = removing, m.now.Mono
	m.do(Remove{Job: j.id, Key: j.key, ID: j.docID(), Expect: j.slot.Doc.Local()})
}

// stale: somebody else wrote the document. Under the lock that can only be a write of an earlier run landing late.
func (m *Machine) stale(j *job) {
	if j.phase == removing {
		m.load(j, verifying)
		return
	}
	m.withdraw(j)
	m.load(j, loading)
}

func (m *Machine) refused(j *job) {
	m.withdraw(j)
	if j.kind == clients {
		m.do(Reply{Ticket: j.req.Ticket, Result: Refused, Err: ErrDuplicate})
	}
	m.finish(j)
}

// withdraw fills the place of a local write that did not happen.
func (m *Machine) withdraw(j *job) {
	if j.kind == peers || j.kind == sweep || j.entry.Seq == 0 {
		return
	}
	m.stats.Voided++
	m.ready[j.entry.Seq] = Entry{Origin: m.cfg.Self, Seq: j.entry.Seq, Stamp: j.entry.Stamp, Void: true}
	j.entry = Entry{}
	m.flush()
}

// verify looks what came of a write that nobody answered. Nothing of it can land any more.
func (m *Machine) verify(j *job) {
	state := j.slot.State()
	switch {
	case j.kind == sweep:
		m.roll(j)
	case m.is(j) && j.slot.HasDoc && !state.Alive():
		m.remove(j)
	case m.is(j):
		m.landed(j)
	case j.kind == clients:
		m.withdraw(j)
		m.do(Reply{Ticket: j.req.Ticket, Result: Failed})
		m.finish(j)
	default:
		m.withdraw(j)
		m.evaluate(j)
	}
}

// is says that the job's write is what the backend has. Sequence numbers and stamps do not tell: a run that crashed may
// have given them to a write that lands only now.
func (m *Machine) is(j *job) bool {
	if j.next.Alive() {
		return j.slot.HasDoc && j.slot.Doc.Local() == j.next.Local()
	}
	return j.slot.HasTomb && j.slot.Tomb.Local() == j.next.Local()
}

// roll finishes a deletion: the tombstone is there, the document still is.
func (m *Machine) roll(j *job) {
	if j.slot.HasDoc && !j.slot.State().Alive() {
		m.remove(j)
		return
	}
	m.finish(j)
}

// landed: the backend has it.
func (m *Machine) landed(j *job) {
	switch j.kind {
	case peers:
		m.advanceOrigin(j)
	case sweep:
		m.finish(j)
	default:
		j.phase = logging
		m.ready[j.entry.Seq] = j.entry
		m.flush()
	}
}
