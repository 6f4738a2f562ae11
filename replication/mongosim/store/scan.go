package store

import "github.com/tidwall/btree"

// Scan walks the documents of one moment: writes after it began are not seen. It is not for use by two goroutines at once.
type Scan struct {
	Sorted bool   // documents come in the order the query asked for
	Index  string // the index that is walked; empty for all documents in natural order

	point  []*Doc // a lookup by _id needs no tree
	all    *btree.IterG[*Doc]
	index  *index
	tree   *btree.BTreeG[entry]
	ranges []span
	back   bool
	it     *btree.IterG[entry]
	begun  bool
	seen   map[int64]struct{} // of a multikey index, where a document has several entries
}

// span is the part of an index from one edge to another, both in the index's own order.
type span struct{ from, to entry }

// Open begins a scan that covers every document the query's filter may match; the caller still has to match each.
func (s *Store) Open(ns Namespace, q Query) *Scan {
	if keys, ok := q.points(); ok {
		return s.openPoints(ns, keys)
	}
	s.mu.Lock() // copying a tree marks it, so even a reader needs the lock alone, for an instant
	defer s.mu.Unlock()
	c := s.dbs[ns.DB][ns.Coll]
	if c == nil {
		return &Scan{Sorted: true}
	}
	p, ok := c.choose(q)
	if !ok {
		it := c.records.Copy().Iter()
		return &Scan{all: &it, Sorted: len(q.Sort) == 0}
	}
	sc := &Scan{Sorted: p.sorted, Index: p.index.Name, index: p.index, tree: p.index.tree.Copy(), ranges: p.spans, back: p.back}
	if p.index.multikey {
		sc.seen = map[int64]struct{}{}
	}
	return sc
}

func (s *Store) openPoints(ns Namespace, keys []string) *Scan {
	sc := &Scan{Index: "_id_", Sorted: len(keys) <= 1}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.dbs[ns.DB][ns.Coll]
	if c == nil {
		return sc
	}
	for _, k := range keys {
		if d := c.byKey[k]; d != nil {
			sc.point = append(sc.point, d)
		}
	}
	return sc
}

// Next is the next document; false at the end.
func (sc *Scan) Next() (*Doc, bool) {
	switch {
	case sc.all != nil:
		return sc.nextRecord()
	case sc.tree != nil:
		return sc.nextEntry()
	case len(sc.point) == 0:
		return nil, false
	}
	d := sc.point[0]
	sc.point = sc.point[1:]
	return d, true
}

func (sc *Scan) nextRecord() (*Doc, bool) {
	ok := false
	if sc.begun {
		ok = sc.all.Next()
	} else {
		ok, sc.begun = sc.all.First(), true
	}
	if !ok {
		return nil, false
	}
	return sc.all.Item(), true
}

func (sc *Scan) nextEntry() (*Doc, bool) {
	for len(sc.ranges) > 0 {
		if !sc.advance() {
			sc.ranges, sc.begun = sc.ranges[1:], false
			continue
		}
		d := sc.it.Item().doc
		if sc.seen != nil {
			if _, twice := sc.seen[d.rid]; twice {
				continue
			}
			sc.seen[d.rid] = struct{}{}
		}
		return d, true
	}
	return nil, false
}

// advance moves to the next entry of the current range, or says that there is none.
func (sc *Scan) advance() bool {
	r, ok := sc.ranges[0], false
	switch {
	case sc.begun && sc.back:
		ok = sc.it.Prev()
	case sc.begun:
		ok = sc.it.Next()
	default:
		it := sc.tree.Iter()
		sc.it, sc.begun = &it, true
		ok = sc.begin(r)
	}
	if !ok {
		return false
	}
	if sc.back {
		return sc.index.compare(sc.it.Item(), r.from) >= 0
	}
	return sc.index.compare(sc.it.Item(), r.to) <= 0
}

func (sc *Scan) begin(r span) bool {
	if !sc.back {
		return sc.it.Seek(r.from)
	}
	if sc.it.Seek(r.to) { // the first entry after the range
		return sc.it.Prev()
	}
	return sc.it.Last()
}

// Count is how many documents a collection holds.
func (s *Store) Count(ns Namespace) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c := s.dbs[ns.DB][ns.Coll]; c != nil {
		return len(c.byKey)
	}
	return 0
}
