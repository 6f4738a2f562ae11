package sim

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/core"
	"popfleet/replication/crdt"
)

// node is a machine with its disk, its backend and its clock. The backend outlives the process, and so do writes that
// are on their way to it.
type node struct {
	*world
	id      crdt.Origin
	cfg     core.Config
	m       *core.Machine
	up      bool
	life    int // counts starts; answers to an earlier life are lost
	born    int64
	skew    int64 // of the wall clock
	backend map[core.Key]*core.Slot
	keys    []core.Key // in the order they came, because maps have none

	log        []core.Entry // durable
	unsynced   []core.Entry // written, lost with the power
	first      crdt.Vector
	checkpoint core.Checkpoint
}

func (n *node) adopt(docs map[core.Key]bson.D) {
	for _, k := range sortedKeys(docs) {
		d, err := crdt.FromDocument(docs[k])
		if err != nil {
			panic(err)
		}
		n.backend[k] = &core.Slot{Doc: d.WithLocal(1), HasDoc: true}
		n.keys = append(n.keys, k)
	}
}

func sortedKeys(docs map[core.Key]bson.D) []core.Key {
	out := make([]core.Key, 0, len(docs))
	for k := range docs {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b core.Key) int {
		if a.NS+a.ID < b.NS+b.ID {
			return -1
		}
		return 1
	})
	return out
}

func (n *node) start() {
	n.life++
	n.up, n.born = true, n.now
	n.m = core.New(n.cfg)
	if n.opts.Prepare != nil {
		n.opts.Prepare(n.m)
	}
	n.step(core.Boot{First: n.first.Clone(), Log: slices.Clone(n.log), Checkpoint: n.checkpoint})
	n.ticking(n.life)
}

func (n *node) ticking(life int) {
	n.after(80+int64(n.IntN(40)), "tick", func() error {
		if n.life == life && n.up {
			n.ticking(life)
			return n.step(core.Tick{})
		}
		return nil
	})
}

// alive is f, if this life is still the node's when it happens.
func (n *node) alive(f func() error) func() error {
	life := n.life
	return func() error {
		if n.life != life || !n.up {
			return nil
		}
		return f()
	}
}

func (n *node) step(ev core.Event) error {
	effects := n.m.Step(core.Instant{Wall: n.now + n.skew, Mono: n.now - n.born}, ev)
	n.mix(uint64(n.id)<<40 + uint64(len(effects)))
	if s := n.m.Stats(); s.Late > 0 || s.Orphans > 0 {
		return n.broken("watermark honest, effect after its cause", "node %d: %d late, %d orphans", n.id, s.Late, s.Orphans)
	}
	for _, e := range slices.Clone(effects) {
		if err := n.do(e); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) do(e core.Effect) error {
	n.traceEffect(e)
	switch e := e.(type) {
	case core.Load:
		n.after(n.disk(), "load", n.alive(func() error { return n.step(core.Loaded{Job: e.Job, Slot: *n.slot(e.Key)}) }))
	case core.Store:
		n.write(e.Job, "store", func() core.Status { return n.store(e) })
	case core.Bury:
		n.write(e.Job, "bury", func() core.Status { return n.bury(e) })
	case core.Remove:
		n.write(e.Job, "remove", func() core.Status { return n.remove(e) })
	case core.Forget:
		if s := n.slot(e.Key); s.HasTomb && s.Tomb.Local() == e.Expect {
			s.Tomb, s.HasTomb = crdt.Doc{}, false
		}
	case core.Append:
		n.unsynced = append(n.unsynced, e.Entries...)
		n.after(n.disk(), "sync", n.alive(func() error {
			n.log, n.unsynced = append(n.log, n.unsynced[:len(e.Entries)]...), n.unsynced[len(e.Entries):]
			return n.step(core.Appended{})
		}))
	case core.Trim:
		n.trim(e)
	case core.Save:
		n.after(n.disk(), "save", n.alive(func() error { n.checkpoint = e.Checkpoint; return n.step(core.Saved{}) }))
	case core.Scan:
		n.after(n.disk(), "scan", n.alive(func() error { return n.step(core.Scanned{Slots: n.scan(e.After)}) }))
	case core.Send:
		n.send(e)
	case core.Reply:
		return n.replied(n, e)
	}
	return nil
}

// traceEffect writes what a machine wants done to a document.
func (n *node) traceEffect(e core.Effect) {
	if n.opts.Trace == nil {
		return
	}
	switch e := e.(type) {
	case core.Store:
		n.trace("%d job %d stores %q expecting %d: %v", n.id, e.Job, e.Key.NS+e.Key.ID, e.Expect, e.Doc.Document())
	case core.Bury:
		n.trace("%d job %d buries %q expecting %d: %v", n.id, e.Job, e.Key.NS+e.Key.ID, e.Expect, e.Tomb.Document())
	case core.Remove:
		n.trace("%d job %d removes %q expecting %d", n.id, e.Job, e.Key.NS+e.Key.ID, e.Expect)
	case core.Forget:
		n.trace("%d forgets %q expecting %d", n.id, e.Key.NS+e.Key.ID, e.Expect)
	case core.Append:
		for _, x := range e.Entries {
			n.trace("%d logs %d of %d stamp %d void %v forgot %d deps %v %q: %v", n.id, x.Seq, x.Origin, x.Stamp, x.Void, x.Forgot, x.Deps, x.Key.NS+x.Key.ID, x.Delta.Document())
		}
	}
}

// disk is fifo: the answers to what one disk was asked come in that order. The same delay for all does it.
func (n *node) disk() int64 { return 2 }

func (n *node) slot(k core.Key) *core.Slot {
	s := n.backend[k]
	if s == nil {
		s = &core.Slot{}
		n.backend[k] = s
		n.keys = append(n.keys, k)
	}
	return s
}

// write sends a write to the backend: it lands and is answered, or it isn't answered and lands late, or never.
func (n *node) write(job uint64, what string, land func() core.Status) {
	wait := 1 + int64(n.IntN(6))
	if n.calm || n.IntN(1000) >= n.stall {
		life := n.life
		n.after(wait, what, func() error {
			status := land()
			if n.life != life || !n.up {
				return nil
			}
			n.trace("%d %s of job %d: %d", n.id, what, job, status)
			return n.alive(func() error { return n.step(core.Done{Job: job, Status: status}) })()
		})
		return
	}
	if n.IntN(3) > 0 {
		n.report.Late++
		n.after(int64(n.IntN(maxTime)), what+" late", func() error { n.trace("%d %s of job %d lands late: %d", n.id, what, job, land()); return nil })
	}
	n.after(int64(n.IntN(maxTime)), what+" unanswered", n.alive(func() error { return n.step(core.Done{Job: job, Status: core.Timeout}) }))
}

func (n *node) store(e core.Store) core.Status {
	s := n.slot(e.Key)
	if e.Expect != core.Anything && (s.HasDoc != (e.Expect > 0) || s.HasDoc && s.Doc.Local() != e.Expect) {
		return core.Mismatch
	}
	s.Doc, s.HasDoc = n.stored(e.Doc), true
	return core.OK
}

func (n *node) bury(e core.Bury) core.Status {
	s := n.slot(e.Key)
	if e.Expect != core.Anything && (s.HasTomb != (e.Expect > 0) || s.HasTomb && s.Tomb.Local() != e.Expect) {
		return core.Mismatch
	}
	s.Tomb, s.HasTomb = n.stored(e.Tomb), true
	return core.OK
}

func (n *node) remove(e core.Remove) core.Status {
	s := n.slot(e.Key)
	if s.HasDoc && s.Doc.Local() != e.Expect {
		return core.Mismatch
	}
	s.Doc, s.HasDoc = crdt.Doc{}, false
	return core.OK
}

// stored takes a detour by bytes in some runs: what the backend returns is what it was given.
func (n *node) stored(d crdt.Doc) crdt.Doc {
	if n.report.Seed%16 != 0 {
		return d
	}
	b, err := d.Marshal()
	if err != nil {
		panic(err)
	}
	back, err := crdt.Unmarshal(b)
	if err != nil {
		panic(err)
	}
	return back
}

func (n *node) scan(after uint64) []core.ScannedSlot {
	var out []core.ScannedSlot
	for _, k := range n.keys {
		if s := n.backend[k]; s.HasTomb || s.HasDoc && s.Doc.Local() > after {
			out = append(out, core.ScannedSlot{Key: k, Slot: *s})
		}
	}
	return out
}

func (n *node) trim(e core.Trim) {
	n.log = slices.DeleteFunc(slices.Clone(n.log), func(x core.Entry) bool { return x.Origin == e.Origin && x.Seq <= e.Seq })
	n.first = n.first.Clone()
	n.first[e.Origin] = e.Seq
}

func (n *node) send(e core.Send) {
	if n.cuts[[2]crdt.Origin{n.id, e.To}] || !n.calm && n.IntN(1000) < n.loss {
		n.report.Lost++
		return
	}
	copies := 1
	if !n.calm && n.IntN(30) == 0 {
		copies = 2
	}
	for range copies {
		to := n.nodes[e.To-1]
		n.after(1+int64(n.IntN(60)), "message", func() error {
			if !to.up {
				return nil
			}
			return to.step(core.Received{From: n.id, Message: e.Message})
		})
	}
}
