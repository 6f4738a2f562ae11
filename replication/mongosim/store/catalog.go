package store

import (
	"maps"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// CollectionInfo describes a collection.
type CollectionInfo struct {
	Name    string
	UUID    bson.Binary
	Options bson.D
	Count   int
	Bytes   int64
	Indexes []*Spec
}

// Databases lists the databases that hold a collection.
func (s *Store) Databases() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.dbs))
}

// Collections describes the collections of a database, by name.
func (s *Store) Collections(db string) []CollectionInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []CollectionInfo
	for _, name := range slices.Sorted(maps.Keys(s.dbs[db])) {
		all = append(all, s.dbs[db][name].info())
	}
	return all
}

// Collection describes one collection; false if it isn't there.
func (s *Store) Collection(ns Namespace) (CollectionInfo, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.dbs[ns.DB][ns.Coll]
	if c == nil {
		return CollectionInfo{}, false
	}
	return c.info(), true
}

func (c *collection) info() CollectionInfo {
	i := CollectionInfo{Name: c.ns.Coll, UUID: c.uuid, Options: c.options, Count: len(c.byKey), Bytes: c.bytes}
	for _, x := range c.indexes {
		i.Indexes = append(i.Indexes, x.Spec)
	}
	return i
}

// schema runs one schema change as a step of history.
func (s *Store) schema(era int64, change func() (undo func(), err error)) (seq int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(era); err != nil {
		return 0, err
	}
	undo, err := change()
	if err != nil {
		return 0, err
	}
	if undo != nil {
		s.append(op{undo: undo})
	}
	return s.hist.applied, nil
}

// create adds an empty collection, as a step of its own.
func (s *Store) create(ns Namespace, options bson.D) *collection {
	s.nextUUID++
	c := newCollection(ns, s.nextUUID, options)
	s.put(c)
	s.append(op{undo: func() { s.remove(ns) }})
	return c
}

func (s *Store) put(c *collection) {
	if s.dbs[c.ns.DB] == nil {
		s.dbs[c.ns.DB] = map[string]*collection{}
	}
	s.dbs[c.ns.DB][c.ns.Coll] = c
}

func (s *Store) remove(ns Namespace) {
	delete(s.dbs[ns.DB], ns.Coll)
	if len(s.dbs[ns.DB]) == 0 {
		delete(s.dbs, ns.DB)
	}
}

// Create adds an empty collection; ErrExists if it is there.
func (s *Store) Create(era int64, ns Namespace, options bson.D) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		if s.dbs[ns.DB][ns.Coll] != nil {
			return nil, ErrExists
		}
		s.create(ns, options)
		return nil, nil
	})
}

// Drop removes a collection with its documents and indexes; ErrNoNamespace if it isn't there.
func (s *Store) Drop(era int64, ns Namespace) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		c := s.dbs[ns.DB][ns.Coll]
		if c == nil {
			return nil, ErrNoNamespace
		}
		s.remove(ns)
		return func() { s.put(c) }, nil
	})
}

// DropDatabase removes all collections of a database, which need not exist.
func (s *Store) DropDatabase(era int64, db string) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		colls := s.dbs[db]
		if colls == nil {
			return nil, nil
		}
		delete(s.dbs, db)
		return func() { s.dbs[db] = colls }, nil
	})
}

// Rename gives a collection another name; a collection already there is dropped if dropTarget, else it is ErrExists.
func (s *Store) Rename(era int64, from, to Namespace, dropTarget bool) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		c, target := s.dbs[from.DB][from.Coll], s.dbs[to.DB][to.Coll]
		switch {
		case c == nil:
			return nil, ErrNoNamespace
		case target != nil && !dropTarget:
			return nil, ErrExists
		}
		s.remove(from)
		c.ns = to
		s.put(c)
		return func() {
			s.remove(to)
			if target != nil {
				s.put(target)
			}
			c.ns = from
			s.put(c)
		}, nil
	})
}

// CreateIndex builds an index, in one step; the collection is created if need be.
func (s *Store) CreateIndex(era int64, ns Namespace, spec *Spec) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		c := s.dbs[ns.DB][ns.Coll]
		if c == nil {
			c = s.create(ns, nil)
		}
		x, err := c.build(spec)
		if err != nil {
			return nil, err
		}
		before := c.indexes
		c.indexes = append(slices.Clip(before), x)
		return func() { c.indexes = before }, nil
	})
}

// DropIndex removes an index by name; "*" removes all but the one on _id. Taking that back needs no rebuild: the steps
// after it are taken back first, and then the documents are those that the dropped tree knows.
func (s *Store) DropIndex(era int64, ns Namespace, name string) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		c := s.dbs[ns.DB][ns.Coll]
		if c == nil {
			return nil, ErrNoNamespace
		}
		before := c.indexes
		at := slices.IndexFunc(before, func(x *index) bool { return x.Name == name })
		switch {
		case name == "*":
			c.indexes = before[:1:1]
		case at < 0:
			return nil, ErrNoIndex
		case at == 0:
			return nil, ErrSystemIndex
		default:
			c.indexes = slices.Delete(slices.Clone(before), at, at+1)
		}
		return func() { c.indexes = before }, nil
	})
}

// Alter replaces an index's spec by one with the same keys (collMod).
func (s *Store) Alter(era int64, ns Namespace, name string, change func(Spec) *Spec) (seq int64, err error) {
	return s.schema(era, func() (func(), error) {
		c := s.dbs[ns.DB][ns.Coll]
		if c == nil {
			return nil, ErrNoNamespace
		}
		at := slices.IndexFunc(c.indexes, func(x *index) bool { return x.Name == name })
		if at < 0 {
			return nil, ErrNoIndex
		}
		x, before := c.indexes[at], c.indexes[at].Spec
		x.Spec = change(*before)
		return func() { x.Spec = before }, nil
	})
}
