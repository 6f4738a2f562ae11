package core

import "popfleet/replication/crdt"

// A job is one write on its way: a client's, a peer's, or one that recovery found.
type job struct {
	id    uint64
	key   Key
	kind  jobKind
	phase jobPhase
	req   Request
	entry Entry
	slot  Slot
	next  crdt.Doc // what is being written
	sent  int64    // when the write went to the backend
	until int64    // when the client stops waiting for the second log
}

type jobKind uint8

const (
	clients jobKind = iota
	peers
	reissue // brings into the log what the backend landed late
	sweep   // removes a document whose tombstone is newer
	reader
)

// The named steps of a write; a crash is simulated at each of them.
type jobPhase uint8

const (
	waiting   jobPhase = iota // for the document's lock
	loading                   // reading the document
	storing                   // writing it
	burying                   // writing its tombstone
	removing                  // removing it after its tombstone
	uncertain                 // the backend did not answer: until nothing can land any more
	verifying                 // reading what came of it
	logging                   // until its entry is durable
	acking                    // until the second log has it
)

// docID is the document's _id: whoever began the job knew it.
func (j *job) docID() any {
	if j.req.ID != nil {
		return j.req.ID
	}
	if id := j.entry.Delta.ID(); id != nil {
		return id
	}
	return j.slot.State().ID()
}

type lock struct {
	holder *job
	queue  []*job
}

func (m *Machine) start(j *job) {
	m.last++
	j.id = m.last
	m.jobs[j.id] = j
	l := m.locks[j.key]
	if l == nil {
		l = &lock{}
		m.locks[j.key] = l
	}
	if l.holder != nil && !m.bug(UnlockedDocument) {
		l.queue = append(l.queue, j)
		return
	}
	l.holder = j
	m.load(j, loading)
}

// unlock lets the next writer of the document begin.
func (m *Machine) unlock(j *job) {
	l := m.locks[j.key]
	if l == nil || l.holder != j {
		return
	}
	if len(l.queue) == 0 {
		delete(m.locks, j.key)
		return
	}
	l.holder, l.queue = l.queue[0], l.queue[1:]
	m.load(l.holder, loading)
}

// yield puts another job before one that has only read the document.
func (m *Machine) yield(j, first *job) {
	m.last++
	first.id, first.key, first.slot, first.phase = m.last, j.key, j.slot, loading
	m.jobs[first.id] = first
	if l := m.locks[j.key]; l != nil && l.holder == j {
		l.queue = append([]*job{j}, l.queue...)
		l.holder = first
	}
	j.phase = waiting
	m.evaluate(first)
}

func (m *Machine) finish(j *job) {
	delete(m.jobs, j.id)
	m.unlock(j)
}

func (m *Machine) load(j *job, p jobPhase) {
	j.phase = p
	m.do(Load{Job: j.id, Key: j.key, ID: j.docID()})
}
