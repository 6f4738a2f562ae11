package store

import (
	"encoding/binary"

	"github.com/tidwall/btree"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// collection holds the current version of each document; indexes[0] is the one on _id. The store's lock guards all of it.
type collection struct {
	ns      Namespace
	uuid    bson.Binary
	options bson.D
	records *btree.BTreeG[*Doc] // natural order
	byKey   map[string]*Doc
	indexes []*index
	bytes   int64
}

func newCollection(ns Namespace, serial uint64, options bson.D) *collection {
	c := &collection{ns: ns, options: options, uuid: uuidOf(serial), byKey: map[string]*Doc{}}
	c.records = btree.NewBTreeGOptions(func(a, b *Doc) bool { return a.rid < b.rid }, btree.Options{NoLocks: true})
	pattern := bson.D{{Key: "_id", Value: int32(1)}}
	c.indexes = []*index{newIndex(&Spec{Name: "_id_", Keys: []KeyPart{Part("_id", 1)}, Pattern: pattern, Unique: true,
		Shown: bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: pattern}, {Key: "name", Value: "_id_"}}})}
	return c
}

// uuidOf makes a collection's id from a running number, so that a seeded run shows the same ones again.
func uuidOf(serial uint64) bson.Binary {
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id[8:], serial)
	id[6], id[8] = 0x40, 0x80|id[8]&0x3f
	return bson.Binary{Subtype: 4, Data: id}
}

// move is the index keys of both versions of a document, worked out before anything changes.
type move struct {
	old, fresh [][]any
	multikey   bool
}

// plan works out every index's move and refuses duplicates.
func (c *collection) plan(before, after *Doc) ([]move, error) {
	moves := make([]move, len(c.indexes))
	for i, x := range c.indexes {
		var err error
		if moves[i].old, _, err = x.keys(before); err != nil {
			return nil, err
		}
		if moves[i].fresh, moves[i].multikey, err = x.keys(after); err != nil {
			return nil, err
		}
		if before != nil && x.same(moves[i].old, moves[i].fresh) {
			continue // what was unique stays so
		}
		if key, found := x.taken(moves[i].fresh, before); found {
			return nil, x.duplicate(c.ns, key)
		}
	}
	return moves, nil
}

// apply replaces before by after in the records and in all indexes.
func (c *collection) apply(before, after *Doc, moves []move) {
	for i, x := range c.indexes {
		x.replace(before, moves[i].old, after, moves[i].fresh)
		x.multikey = x.multikey || moves[i].multikey
	}
	if before != nil {
		c.bytes -= int64(len(before.Raw))
	}
	if after == nil {
		c.records.Delete(before)
		delete(c.byKey, before.Key)
		return
	}
	c.bytes += int64(len(after.Raw))
	c.records.Set(after)
	c.byKey[after.Key] = after
}

// revert undoes a commit: after is there now, before shall be. An earlier state held every rule, so none is checked.
func (c *collection) revert(before, after *Doc) {
	moves := make([]move, len(c.indexes))
	for i, x := range c.indexes {
		moves[i].old, _, _ = x.keys(after)
		moves[i].fresh, moves[i].multikey, _ = x.keys(before)
	}
	c.apply(after, before, moves)
}

// build fills a new index, or says why it can't be.
func (c *collection) build(spec *Spec) (*index, error) {
	x := newIndex(spec)
	var failed error
	c.records.Scan(func(d *Doc) bool {
		keys, multikey, err := x.keys(d)
		if err == nil {
			if key, found := x.taken(keys, nil); found {
				err = x.duplicate(c.ns, key)
			}
		}
		if failed = err; err != nil {
			return false
		}
		x.multikey = x.multikey || multikey
		x.replace(nil, nil, d, keys)
		return true
	})
	return x, failed
}
