package oplog

import (
	"cmp"
	"container/list"
	"fmt"
	"slices"
	"sync"
	"time"
)

// sessions is what is remembered of retryable writes: of each session the statements of its newest transaction number.
// The index is in memory (about 200 bytes each), the results are on disk.
type sessions struct {
	now   func() time.Time
	limit int
	bytes int64
	ttl   time.Duration

	mu      sync.Mutex
	byID    map[string]*session
	order   *list.List // *session, the least lately used first
	held    int64      // bytes of results
	durable uint64     // steps up to here are on disk
}

type session struct {
	lsid  string
	txn   int64
	used  time.Time
	stmts map[int32]stmt
	place *list.Element
}

type stmt struct {
	size int64
	step uint64 // that wrote it
}

func newSessions(o Options) *sessions {
	return &sessions{now: o.Now, limit: o.Sessions, bytes: o.SessionBytes, ttl: o.SessionTTL, byID: map[string]*session{}, order: list.New()}
}

// Result is what a retried statement is answered with.
type Result struct {
	Origin uint8
	Seq    uint64
	Bytes  []byte
}

// Lookup finds the result of a statement. ok is false when it was never written, or is forgotten, or is not durable yet:
// who asks holds the lock that the first attempt held. ErrTxnTooOld when the session has gone on since.
func (l *Log) Lookup(lsid []byte, txn int64, id int32) (r Result, ok bool, err error) {
	if ok, err := l.sessions.known(string(lsid), txn, id); !ok || err != nil {
		return Result{}, false, err
	}
	if err := l.begin(); err != nil {
		return Result{}, false, err
	}
	defer l.reads.RUnlock()
	raw, err := l.get(sessionKey(lsid, txn, id))
	if err != nil || raw == nil { // nil: forgotten in between
		return Result{}, false, err
	}
	_, r.Origin, r.Seq, r.Bytes, err = parseSessionValue(raw)
	return r, err == nil, err
}

func (t *sessions) known(lsid string, txn int64, id int32) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[lsid]
	switch {
	case s == nil || txn > s.txn || t.now().Sub(s.used) > t.ttl:
		return false, nil
	case txn < s.txn:
		return false, fmt.Errorf("transaction %d: %w: %d", txn, ErrTxnTooOld, s.txn)
	}
	at, ok := s.stmts[id]
	return ok && at.step <= t.durable, nil
}

// record adds an entry's session to the step. An older transaction number than the session's is left out: its client has
// gone on.
func (t *sessions) record(st *step, e *encoded) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := string(e.session.LSID)
	s := t.byID[id]
	if s == nil {
		s = &session{lsid: id, txn: e.session.Txn, stmts: map[int32]stmt{}}
		s.place = t.order.PushBack(s)
		t.byID[id] = s
	}
	if e.session.Txn < s.txn {
		return
	}
	if e.session.Txn > s.txn {
		t.drop(st, s)
		s.txn = e.session.Txn
	}
	s.used = t.now()
	t.order.MoveToBack(s.place)
	t.held -= s.stmts[e.session.Stmt].size
	size := int64(sessionHead + len(e.session.Result))
	s.stmts[e.session.Stmt] = stmt{size, st.number}
	t.held += size
	st.set(sessionKey(e.session.LSID, e.session.Txn, e.session.Stmt),
		appendSessionValue(nil, s.used.UnixMilli(), e.origin, e.seq, e.session.Result))
}

// drop forgets the statements of a session.
func (t *sessions) drop(st *step, s *session) {
	for id, at := range s.stmts {
		st.remove(sessionKey([]byte(s.lsid), s.txn, id))
		t.held -= at.size
	}
	clear(s.stmts)
}

// evict forgets sessions that are too old, or too many. The newest stays, whatever its size.
func (t *sessions) evict(st *step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.order.Len() > 1 {
		s := t.order.Front().Value.(*session)
		if len(t.byID) <= t.limit && t.held <= t.bytes && t.now().Sub(s.used) <= t.ttl {
			return
		}
		t.drop(st, s)
		t.order.Remove(s.place)
		delete(t.byID, s.lsid)
	}
}

func (t *sessions) publish(step uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.durable = step
}

// load takes up one row. Of two transaction numbers the greater one counts; the other's rows were deleted in the step
// that wrote it, so this does not happen in a log that is whole.
func (t *sessions) load(key, value []byte) error {
	lsid, txn, id, err := parseSessionKey(key)
	if err != nil {
		return err
	}
	usedMs, _, _, _, err := parseSessionValue(value)
	if err != nil {
		return err
	}
	s := t.byID[lsid]
	if s == nil || txn > s.txn {
		s = &session{lsid: lsid, txn: txn, stmts: map[int32]stmt{}}
		t.byID[lsid] = s
	}
	if used := time.UnixMilli(usedMs); used.After(s.used) {
		s.used = used
	}
	s.stmts[id] = stmt{size: int64(len(value))}
	t.held += int64(len(value))
	return nil
}

// loaded puts what was loaded in the order of its use.
func (t *sessions) loaded() {
	all := make([]*session, 0, len(t.byID))
	for _, s := range t.byID {
		all = append(all, s)
	}
	sortByUse(all)
	for _, s := range all {
		s.place = t.order.PushBack(s)
	}
}

func sortByUse(all []*session) {
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.lsid, b.lsid))
	})
}
