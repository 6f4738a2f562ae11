package store

import "context"

// op is one step of history, with what it takes to undo it.
type op struct {
	seq           int64
	coll          *collection
	before, after *Doc
	undo          func() // of a schema change, or of a statement's record
}

// history is what may still be taken back: the steps that are not yet both journalled and on a majority. Always
// majority ≤ journalled ≤ applied, for a majority journals (writeConcernMajorityJournalDefault).
type history struct {
	ops                           []op
	applied, journalled, majority int64

	next                      int64 // never given twice, not even after an undo
	journalHeld, majorityHeld bool
	moved                     chan struct{} // closed when a mark or the era moves; nil if nobody waits
}

// Marks says how far each guarantee reaches.
type Marks struct{ Applied, Journalled, Majority int64 }

// Guarantee is what a write waits for.
type Guarantee int

// Applied is in memory, Journalled survives a power cut, Majority survives a failover too.
const (
	Applied Guarantee = iota
	Journalled
	Majority
)

// append adds a step. A long history that nobody asked to keep is journalled and replicated, as mongod does by itself.
func (s *Store) append(o op) {
	h := &s.hist
	h.next++
	o.seq, h.applied = h.next, h.next
	h.ops = append(h.ops, o)
	if len(h.ops) >= s.backlog {
		s.advance(h.applied, Majority)
	}
}

// advance moves the marks to seq as far as nothing holds them, and forgets what can't be taken back any more.
func (s *Store) advance(seq int64, g Guarantee) {
	h := &s.hist
	if g >= Journalled && !h.journalHeld && seq > h.journalled {
		h.journalled = seq
	}
	if g >= Majority && !h.majorityHeld && min(seq, h.journalled) > h.majority {
		h.majority = min(seq, h.journalled)
	}
	n := 0
	for n < len(h.ops) && h.ops[n].seq <= h.majority {
		h.ops[n] = op{}
		n++
	}
	if h.ops = h.ops[n:]; len(h.ops) == 0 {
		h.ops = nil
	}
	s.signal()
}

func (s *Store) signal() {
	if s.hist.moved != nil {
		close(s.hist.moved)
		s.hist.moved = nil
	}
}

// Wait returns when the step at seq has the guarantee, moving the marks itself unless they are held. It fails with
// ErrEra when the node changed its role meanwhile, so the step may have been taken back, and with ctx's error.
func (s *Store) Wait(ctx context.Context, era, seq int64, g Guarantee) error {
	for {
		moved, err := s.reach(era, seq, g)
		if moved == nil {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reach returns the channel to wait on, or nil and the outcome.
func (s *Store) reach(era, seq int64, g Guarantee) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(era); err != nil {
		return nil, err
	}
	if g == Applied || s.hist.mark(g) >= seq {
		return nil, nil
	}
	s.advance(seq, g)
	if s.hist.mark(g) >= seq {
		return nil, nil
	}
	if s.hist.moved == nil {
		s.hist.moved = make(chan struct{})
	}
	return s.hist.moved, nil
}

func (h *history) mark(g Guarantee) int64 {
	switch g {
	case Journalled:
		return h.journalled
	case Majority:
		return h.majority
	}
	return h.applied
}

// Marks says how far each guarantee reaches now.
func (s *Store) Marks() Marks {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Marks{Applied: s.hist.applied, Journalled: s.hist.journalled, Majority: s.hist.majority}
}

// Flush moves the marks to what is applied, as far as nothing holds them.
func (s *Store) Flush(g Guarantee) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(s.hist.applied, g)
}

// Hold stops the journal, the majority, or both from following; letting one go doesn't move it by itself, but wakes those
// who wait for it.
func (s *Store) Hold(journal, majority bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hist.journalHeld, s.hist.majorityHeld = journal, majority
	s.signal()
}

// Revert begins a new era and takes back every step that lacks the guarantee: Journalled is what a power cut leaves,
// Majority what a failover leaves, Applied takes nothing back. It returns how many steps were lost.
func (s *Store) Revert(g Guarantee) (lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &s.hist
	keep := h.mark(g)
	for i := len(h.ops) - 1; i >= 0 && h.ops[i].seq > keep; i-- {
		o := h.ops[i]
		if o.coll != nil {
			o.coll.revert(o.before, o.after)
		}
		if o.undo != nil {
			o.undo()
		}
		h.ops, lost = h.ops[:i], lost+1
	}
	h.applied, h.journalled = keep, min(h.journalled, keep)
	s.era++
	s.settle()
	s.signal()
	return lost
}
