package core

import (
	"slices"

	"popfleet/replication/crdt"
)

// Machine is one node. Make it with New, feed it Boot, then whatever happens.
type Machine struct {
	mutations
	cfg Config
	now Instant
	out []Effect

	phase phase
	clock crdt.Stamp
	seq   uint64 // newest sequence number given to a local write
	used  uint64 // newest that the run before may have given: it is not given again
	local uint64 // newest change number
	jobs  map[uint64]*job
	last  uint64 // newest job
	locks map[Key]*lock
	safe  uint64 // see Checkpoint.Safe
	// settled says that nothing of the run before can land any more, and that what did is in the log.
	settled bool
	// floor is what the backend may already have of each origin, though the checkpoint didn't say so.
	floor crdt.Vector

	log      map[crdt.Origin]*origin
	ready    map[uint64]Entry // local writes waiting for the ones before them, by sequence number
	appends  [][]mark         // what each Append not yet answered holds
	have     crdt.Vector      // in the log
	durable  crdt.Vector      // in the log for good
	applied  crdt.Vector      // in the backend
	acking   []*job           // logged, waiting for the second log
	reads    []Read           // waiting for their tokens
	sessions map[string]session

	peers    []*peer
	marks    map[crdt.Origin]crdt.Stamp
	promises map[crdt.Origin]Promise
	low      crdt.Stamp
	tombs    []tomb
	saves    []Checkpoint
	kept     crdt.Vector // applied, as the checkpoint on disk says
	reserved crdt.Stamp
	// forgotten is the cut that the checkpoint on disk has.
	forgotten crdt.Stamp

	nextBeat, nextSave, rescan int64
	stats                      Stats
}

type phase uint8

const (
	off phase = iota
	starting
	recovering
	serving
)

// Stats counts what an operator wants to know and what must never happen.
type Stats struct {
	Applied, Reissued, Voided, Retried int
	// Late counts entries that arrived below the announced watermark, Orphans updates that came before their insert:
	// both are broken promises.
	Late, Orphans int
	// Quarantined counts messages refused because their clock is too far ahead.
	Quarantined int
}

type mark struct {
	origin crdt.Origin
	seq    uint64
}

// New is a node before its first event.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg, jobs: map[uint64]*job{}, locks: map[Key]*lock{}, log: map[crdt.Origin]*origin{},
		ready: map[uint64]Entry{}, have: crdt.Vector{}, durable: crdt.Vector{}, applied: crdt.Vector{}, floor: crdt.Vector{}, kept: crdt.Vector{},
		sessions: map[string]session{}, marks: map[crdt.Origin]crdt.Stamp{}, promises: map[crdt.Origin]Promise{}}
	for _, member := range cfg.Members {
		m.log[member.ID] = &origin{}
		if member.ID != cfg.Self {
			m.peers = append(m.peers, &peer{Member: member, sent: crdt.Vector{}, have: crdt.Vector{}})
		}
	}
	slices.SortFunc(m.peers, func(a, b *peer) int { return int(a.ID) - int(b.ID) })
	return m
}

// Instant is a time in milliseconds: Wall since 2020-01-01 UTC by the node's clock, which may be wrong and step; Mono since
// any moment of this run, which never steps and measures what is waited for.
type Instant struct{ Wall, Mono int64 }

// Step takes an event and answers with what to do. The slice is the caller's until the next Step.
func (m *Machine) Step(now Instant, ev Event) []Effect {
	m.out, m.now = m.out[:0], now
	switch ev := ev.(type) {
	case Boot:
		m.boot(ev)
	case Request:
		m.request(ev)
	case Read:
		m.read(ev)
	case Loaded:
		m.loaded(ev)
	case Done:
		m.done(ev)
	case Appended:
		m.appended()
	case Saved:
		m.saved()
	case Scanned:
		m.scanned(ev)
	case Received:
		m.received(ev)
	case Tick:
		m.tick()
	}
	return m.out
}

func (m *Machine) do(e Effect) { m.out = append(m.out, e) }

// Low is the watermark: everything that any member wrote up to this stamp is applied here, and nothing older will come.
func (m *Machine) Low() crdt.Stamp { return m.low }

// Applied is what the backend has of each origin.
func (m *Machine) Applied() crdt.Vector { return m.applied.Clone() }

// Have is what the log has of each origin.
func (m *Machine) Have() crdt.Vector { return m.have.Clone() }

// Stats counts.
func (m *Machine) Stats() Stats { return m.stats }

// Serving says that recovery is over.
func (m *Machine) Serving() bool { return m.phase == serving }

// Idle says that nothing is under way.
func (m *Machine) Idle() bool { return m.phase == serving && len(m.jobs) == 0 && len(m.appends) == 0 }

// stamp is the next one, newer than everything seen and than after.
func (m *Machine) stamp(after crdt.Stamp) crdt.Stamp {
	m.clock = crdt.Next(max(m.clock, after), m.now.Wall, m.cfg.Self)
	return m.clock
}

func (m *Machine) observe(s crdt.Stamp) { m.clock = max(m.clock, s) }

func (m *Machine) tick() {
	if m.phase != serving {
		return
	}
	for _, j := range m.sortedJobs() {
		if j.phase == uncertain && m.now.Mono-j.sent > m.cfg.MaxTime {
			m.load(j, verifying)
		}
	}
	m.expire()
	if !m.settled && m.rescan != 0 && m.now.Mono >= m.rescan {
		m.rescan = 0
		m.do(Scan{After: m.safe})
	}
	if m.now.Mono >= m.nextSave {
		m.nextSave = m.now.Mono + 2*m.cfg.Beat
		m.save()
	}
	if m.now.Mono >= m.nextBeat {
		m.nextBeat = m.now.Mono + m.cfg.Beat
		m.beat()
	}
}

// sortedJobs are the open jobs in the order they began: maps have none, and every run must be the same.
func (m *Machine) sortedJobs() []*job {
	out := make([]*job, 0, len(m.jobs))
	for _, j := range m.jobs {
		out = append(out, j)
	}
	slices.SortFunc(out, func(a, b *job) int { return int(a.id) - int(b.id) })
	return out
}
