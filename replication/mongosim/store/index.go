package store

import (
	"slices"

	"github.com/tidwall/btree"
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// KeyPart is one field of an index or of a sort.
type KeyPart struct {
	Path  []string
	Order int // 1 or -1
}

// Part makes a KeyPart of a dotted path.
func Part(dotted string, order int) KeyPart { return KeyPart{Path: splitPath(dotted), Order: order} }

// Spec is an index as it was asked for.
type Spec struct {
	Name    string
	Keys    []KeyPart
	Pattern bson.D // the keys as the client wrote them
	Unique  bool
	Sparse  bool
	Hidden  bool
	Partial func(bson.D) bool // nil: every document
	Shown   bson.D            // as listIndexes answers it

	ExpireAfterSeconds *int64
}

// index is a spec and its tree. The tree is copied on write, so a reader that took a copy sees one moment.
type index struct {
	*Spec
	tree     *btree.BTreeG[entry]
	multikey bool // set by the first array and never cleared, as in mongod
}

// entry is a key and the version that has it; with an edge of -1 or 1 it stands before or after all that begin with key.
type entry struct {
	key  []any
	doc  *Doc
	edge int8
}

func newIndex(spec *Spec) *index {
	x := &index{Spec: spec}
	x.tree = btree.NewBTreeGOptions(func(a, b entry) bool { return x.compare(a, b) < 0 }, btree.Options{NoLocks: true})
	return x
}

func (x *index) compare(a, b entry) int {
	n := min(len(a.key), len(b.key))
	if c := x.compareKeys(a.key[:n], b.key[:n]); c != 0 {
		return c
	}
	if a.edge != b.edge {
		return int(a.edge) - int(b.edge)
	}
	switch {
	case a.edge != 0 || a.doc.rid == b.doc.rid:
		return 0
	case a.doc.rid < b.doc.rid:
		return -1
	}
	return 1
}

func (x *index) compareKeys(a, b []any) int {
	for i := range a {
		if c := bsonval.Compare(a[i], b[i]); c != 0 {
			return c * x.Keys[i].Order
		}
	}
	return 0
}

// keys lists what doc has in this index; none if a partial or sparse index leaves it out.
func (x *index) keys(doc *Doc) ([][]any, bool, error) {
	if doc == nil || x.Partial != nil && !x.Partial(doc.Body) {
		return nil, false, nil
	}
	return x.keysOf(doc.Body)
}

func (x *index) same(a, b [][]any) bool {
	return slices.EqualFunc(a, b, func(a, b []any) bool { return x.compareKeys(a, b) == 0 })
}

// taken finds a document other than self that holds one of keys, in a unique index.
func (x *index) taken(keys [][]any, self *Doc) (key []any, found bool) {
	if !x.Unique {
		return nil, false
	}
	for _, k := range keys {
		it := x.tree.Iter()
		for ok := it.Seek(entry{key: k, edge: -1}); ok && x.compareKeys(it.Item().key, k) == 0; ok = it.Next() {
			if self == nil || it.Item().doc.rid != self.rid {
				return k, true
			}
		}
	}
	return nil, false
}

// replace moves the index from one version to the next; either may be nil.
func (x *index) replace(before *Doc, old [][]any, after *Doc, fresh [][]any) {
	for _, k := range old {
		if !slices.ContainsFunc(fresh, func(f []any) bool { return x.compareKeys(f, k) == 0 }) {
			x.tree.Delete(entry{key: k, doc: before})
		}
	}
	for _, k := range fresh {
		x.tree.Set(entry{key: k, doc: after})
	}
}

func (x *index) duplicate(ns Namespace, key []any) *DuplicateKey {
	value := make(bson.D, len(key))
	for i, v := range key {
		value[i] = bson.E{Key: x.Pattern[i].Key, Value: v}
	}
	return &DuplicateKey{NS: ns, Index: x.Name, Pattern: x.Pattern, Value: value}
}
