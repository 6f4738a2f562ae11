package crdt

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// render is the value at a path, false if there is none.
func (n *node) render() (any, bool) {
	if n == nil || n.dead != 0 {
		return nil, false
	}
	switch n.kind {
	case document:
		return n.appendFields(make(bson.D, 0, len(n.kids))), true
	case array:
		shown := n.shown()
		out := make(bson.A, 0, len(shown))
		for _, e := range shown {
			out = append(out, e.val)
		}
		return out, true
	}
	v, present := extremum(n.val, n.kind == scalar, n.max, 1)
	v, present = extremum(v, present, n.min, -1)
	return counted(v, present, n.inc, n.seen)
}

// appendFields appends the document's fields: those of the write that decided it in its order, then the others by name.
func (n *node) appendFields(out bson.D) bson.D {
	for _, key := range n.base {
		if v, ok := n.kid(key).render(); ok {
			out = append(out, bson.E{Key: key, Value: v})
		}
	}
	for _, k := range n.kids {
		if slices.Contains(n.base, k.key) {
			continue
		}
		if v, ok := k.n.render(); ok {
			out = append(out, bson.E{Key: k.key, Value: v})
		}
	}
	return out
}

type shownElem struct {
	elem
	val any
}

// shown lists the elements the application sees, in order: by dot, without removed ones, and of equal elements that
// $addToSet brought only the first.
func (n *node) shown() []shownElem {
	out := make([]shownElem, 0, len(n.elems))
	unique := slices.ContainsFunc(n.elems, func(e elem) bool { return e.n.uniq })
	var have map[string]bool
	if unique {
		have = make(map[string]bool, len(n.elems))
	}
	for _, e := range n.elems {
		v, ok := e.n.render()
		if !ok {
			continue
		}
		if unique {
			id := string(bsonval.Canonical(v))
			if e.n.uniq && have[id] {
				continue
			}
			have[id] = true
		}
		out = append(out, shownElem{e, v})
	}
	return out
}
