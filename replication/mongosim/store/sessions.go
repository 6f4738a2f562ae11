package store

import "context"

// Stmt names one statement of a retryable write, and carries what a repetition answers.
type Stmt struct {
	Session string // canonical bytes of lsid
	Txn     int64
	ID      int32
	Outcome Outcome
}

// Outcome is what a recorded statement did.
type Outcome struct {
	Upserted bool
	ID       any  // of the document it wrote
	Image    *Doc // what findAndModify answered: the version before or after, as it was asked for
	Seq      int64
}

// session is a client's session. What is recorded survives exactly as long as the writes it speaks of.
type session struct {
	txn   int64 // of the records
	stmts map[int32]Outcome
	begun int64         // the highest number seen, recorded or not; forgotten by a restart
	busy  chan struct{} // holds one token while a statement of this session runs
}

// Checkout makes statements of one session wait for each other, as a retry must for the attempt it repeats.
func (s *Store) Checkout(ctx context.Context, id string) (release func(), err error) {
	s.mu.Lock()
	busy := s.session(id).busy
	s.mu.Unlock()
	select {
	case busy <- struct{}{}:
		return func() { <-busy }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Store) session(id string) *session {
	x := s.sessions[id]
	if x == nil {
		x = &session{txn: -1, begun: -1, busy: make(chan struct{}, 1)}
		s.sessions[id] = x
	}
	return x
}

// Begin says that the session, checked out by the caller, now works at txn; a smaller one than before is ErrTxnTooOld.
func (s *Store) Begin(id string, txn int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.session(id)
	if txn < x.begun {
		return ErrTxnTooOld
	}
	x.begun = txn
	return nil
}

// Recorded is what the statement did when it ran before.
func (s *Store) Recorded(id string, txn int64, stmt int32) (Outcome, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	x := s.sessions[id]
	if x == nil || x.txn != txn {
		return Outcome{}, false
	}
	o, ok := x.stmts[stmt]
	return o, ok
}

// record keeps a statement's outcome; undo forgets it again, and brings back the transaction it displaced.
func (s *Store) record(st *Stmt, seq int64) (undo func()) {
	x := s.session(st.Session)
	txn, stmts := x.txn, x.stmts
	if txn != st.Txn {
		x.txn, x.stmts = st.Txn, map[int32]Outcome{}
	}
	o := st.Outcome
	o.Seq = seq
	mine := x.stmts
	earlier, had := mine[st.ID]
	mine[st.ID] = o
	return func() {
		if mine[st.ID] = earlier; !had {
			delete(mine, st.ID)
		}
		if txn != st.Txn {
			x.txn, x.stmts = txn, stmts
		}
	}
}

// settle is a restart's view of the sessions: only what was recorded is known.
func (s *Store) settle() {
	for _, x := range s.sessions {
		x.begun = x.txn
	}
}

// EndSession forgets a session with its records, unless a statement of it runs.
func (s *Store) EndSession(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.sessions[id]; x != nil && len(x.busy) == 0 {
		delete(s.sessions, id)
	}
}

// Sessions counts the sessions that are known.
func (s *Store) Sessions() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.sessions)
}
