package store

import (
	"hash/maphash"
	"sync"
)

const stripes = 256

// Options shape a store; the zero value is one whose journal and majority follow on demand.
type Options struct {
	Backlog int // writes that history may hold before it is journalled and replicated by itself; 65536 if zero
}

// Store is all databases of one node. Its methods may be called from many goroutines.
type Store struct {
	backlog int
	seed    maphash.Seed
	stripes [stripes]sync.Mutex // one writer per document, see Lock

	mu       sync.RWMutex
	dbs      map[string]map[string]*collection
	hist     history
	sessions map[string]*session
	era      int64
	full     bool
	nextRID  int64
	nextUUID uint64
}

// New makes an empty store.
func New(o Options) *Store {
	if o.Backlog <= 0 {
		o.Backlog = 1 << 16
	}
	return &Store{backlog: o.Backlog, seed: maphash.MakeSeed(), dbs: map[string]map[string]*collection{}, era: 1,
		sessions: map[string]*session{}}
}

// Lock lets one writer at a time work on the document called key. Atomicity doesn't need it, since Commit compares
// versions; it spares writers of one document from working out changes in vain. Hold one at a time.
func (s *Store) Lock(ns Namespace, key string) (unlock func()) {
	m := &s.stripes[maphash.Comparable(s.seed, docName{ns, key})%stripes]
	m.Lock()
	return m.Unlock
}

type docName struct {
	ns  Namespace
	key string
}

// Change is one document's step: Before nil inserts, After nil deletes.
type Change struct {
	Before, After *Doc
	Stmt          *Stmt // the retryable statement that does it, recorded in the same step
}

// Commit does a change if its Before is still the current version and era the current era, and returns its place in
// history. The collection is created if an insert needs it.
func (s *Store) Commit(era int64, ns Namespace, c Change) (seq int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(era); err != nil {
		return 0, err
	}
	if s.full && c.After != nil {
		return 0, ErrFull
	}
	coll := s.dbs[ns.DB][ns.Coll]
	if coll == nil {
		if c.Before != nil {
			return 0, ErrConflict
		}
		coll = s.create(ns, nil)
	}
	if err := s.commit(coll, c); err != nil {
		return 0, err
	}
	return s.hist.applied, nil
}

func (s *Store) commit(coll *collection, c Change) error {
	if c.Before != nil && coll.byKey[c.Before.Key] != c.Before {
		return ErrConflict
	}
	moves, err := coll.plan(c.Before, c.After)
	if err != nil {
		return err
	}
	if c.After != nil {
		if c.Before != nil {
			c.After.rid = c.Before.rid
		} else {
			s.nextRID++
			c.After.rid = s.nextRID
		}
	}
	coll.apply(c.Before, c.After, moves)
	o := op{coll: coll, before: c.Before, after: c.After}
	if c.Stmt != nil {
		o.undo = s.record(c.Stmt, s.hist.applied+1)
	}
	s.append(o)
	return nil
}

func (s *Store) writable(era int64) error {
	if era != s.era {
		return ErrEra
	}
	return nil
}

// Get is the current version of a document, or nil.
func (s *Store) Get(ns Namespace, key string) *Doc {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c := s.dbs[ns.DB][ns.Coll]; c != nil {
		return c.byKey[key]
	}
	return nil
}

// Era counts the times that this node restarted or changed its role: what began in one era can't be committed in another.
func (s *Store) Era() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.era
}

// SetFull makes every commit that needs space fail with ErrFull, or stops that.
func (s *Store) SetFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}
