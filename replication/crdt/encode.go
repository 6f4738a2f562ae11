package crdt

import (
	"math"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// Document is the state as one BSON document: the visible fields and the hidden one. Equal states are equal documents,
// but for what is this replica's own (Local and Retry). A tombstone is its _id and the hidden field.
func (d Doc) Document() bson.D {
	body, state := d.parts(true)
	return append(body, bson.E{Key: Field, Value: state})
}

// parts are the visible fields and the content of the hidden one, with or without what replicas that hold the same may
// differ in.
func (d Doc) parts(own bool) (body, state bson.D) {
	if !own {
		d.deaths, d.dots = nil, nil // forgotten here sooner, there later
	}
	state = make(bson.D, 0, 8+len(d.dots))
	if own && d.local != 0 {
		state = append(state, bson.E{Key: keyLocal, Value: integer(int64(d.local))})
	}
	if !d.alive || len(d.deaths) > 0 {
		state = append(state, bson.E{Key: keyCausal, Value: d.lives()})
	}
	if d.created != 0 {
		state = append(state, bson.E{Key: keyCreated, Value: int64(d.created)})
	}
	for _, e := range d.dots {
		state = append(state, bson.E{Key: strconv.Itoa(int(e.Origin)), Value: integer(int64(e.Seq))})
	}
	body = bson.D{{Key: "_id", Value: d.id}}
	if d.root != nil {
		w := encoder{}
		body = w.root(body, d.root, d.created)
		state = w.appendTo(state)
	}
	if own && !d.retry.zero() {
		state = append(state, bson.E{Key: keyRetry, Value: d.retry.document()})
	}
	return body, state
}

// lives are the stamps of the deletes, and a zero for the life that goes on.
func (d Doc) lives() bson.A {
	out := make(bson.A, 0, len(d.deaths)+1)
	for _, s := range d.deaths {
		out = append(out, int64(s))
	}
	if d.alive {
		out = append(out, int32(0))
	}
	return out
}

func (r Retry) zero() bool { return len(r.Session) == 0 && r.Number == 0 && r.Statement == 0 }

func (r Retry) document() bson.D {
	return bson.D{{Key: "s", Value: bson.Binary{Data: r.Session}}, {Key: "n", Value: r.Number}, {Key: "i", Value: r.Statement}}
}

// integer is the smaller type that holds n: both compare alike at a server.
func integer(n int64) any {
	if n == int64(int32(n)) {
		return int32(n)
	}
	return n
}

// encoder collects, path by path, what the visible value doesn't say.
type encoder struct {
	stamps, gaps, absent, clash, tallies, extremes, elements, hidden bson.D
}

func (w *encoder) appendTo(state bson.D) bson.D {
	state = append(state, w.stamps...)
	for _, part := range []struct {
		key string
		d   bson.D
	}{{keyGaps, w.gaps}, {keyAbsent, w.absent}, {keyClash, w.clash}, {keyTallies, w.tallies}, {keyExtremes, w.extremes},
		{keyElements, w.elements}, {keyHidden, w.hidden}} {
		if len(part.d) > 0 {
			state = append(state, bson.E{Key: part.key, Value: part.d})
		}
	}
	return state
}

// root encodes the fields of a document; created is the stamp that goes without saying.
func (w *encoder) root(body bson.D, n *node, created Stamp) bson.D {
	return w.fields(body, "", n, created)
}

func (w *encoder) fields(body bson.D, path string, n *node, inherited Stamp) bson.D {
	var gaps bson.A
	based := make(map[string]bool, len(n.base))
	for i, key := range n.base {
		based[key] = true
		k := n.kid(key)
		if v, ok := w.node(below(path, key), k, inherited, true); ok {
			body = append(body, bson.E{Key: key, Value: v})
		} else {
			gaps = append(gaps, integer(int64(i)), key)
		}
	}
	for _, k := range n.kids {
		if based[k.key] {
			continue
		}
		if v, ok := w.node(below(path, k.key), k.n, inherited, false); ok {
			body = append(body, bson.E{Key: k.key, Value: v})
		}
	}
	if len(gaps) > 0 {
		w.gaps = append(w.gaps, bson.E{Key: gapsOf(path), Value: gaps})
	}
	return body
}

// node encodes what is at a path. based says that the parent's deciding write had the field.
func (w *encoder) node(path string, n *node, inherited Stamp, based bool) (any, bool) {
	if n == nil {
		return nil, false
	}
	v, shown := n.renderLeaf()
	w.stamp(path, n, shown, inherited, based)
	if n.clash != 0 {
		w.clash = append(w.clash, bson.E{Key: path, Value: int64(n.clash)})
	}
	if len(n.inc)+len(n.seen) > 0 {
		w.tallies = append(w.tallies, bson.E{Key: path, Value: talliesOf(n, v)})
	}
	if len(n.max)+len(n.min) > 0 {
		w.extremes = append(w.extremes, bson.E{Key: path, Value: extremesOf(n)})
	}
	switch n.kind {
	case document:
		return w.fields(make(bson.D, 0, len(n.kids)), path, n, n.cover()), true
	case array:
		w.husks(path, n)
		return w.array(path, n), true
	}
	w.husks(path, n)
	return v, shown
}

// husks encodes what is left of fields below something that is no document.
func (w *encoder) husks(path string, n *node) {
	for _, k := range n.kids {
		key := hiddenBelow(path, k.key)
		if len(k.n.inc)+len(k.n.seen) > 0 {
			w.tallies = append(w.tallies, bson.E{Key: key, Value: appendTallies(nil, k.n)})
		}
		if len(k.n.max)+len(k.n.min) > 0 {
			w.extremes = append(w.extremes, bson.E{Key: key, Value: appendExtremes(nil, k.n)})
		}
		w.husks(key, k.n)
	}
}

// renderLeaf is render without what is below a document or an array, which encodes itself.
func (n *node) renderLeaf() (any, bool) {
	if n.kind == document || n.kind == array {
		return nil, true
	}
	return n.render()
}

// stamp notes the deciding write where it is not the one that goes without saying. Negative: the parent's deciding write
// didn't have the field. Null: there is no value but what tallies and extremes make.
func (w *encoder) stamp(path string, n *node, shown bool, inherited Stamp, based bool) {
	switch {
	case !shown && n.stamp != inherited:
		w.absent = append(w.absent, bson.E{Key: path, Value: int64(n.stamp)})
	case !shown:
	case n.kind == absent && n.stamp == inherited && !based:
		w.stamps = append(w.stamps, bson.E{Key: path, Value: nil})
	case !based:
		w.stamps = append(w.stamps, bson.E{Key: path, Value: -int64(n.stamp)})
	case n.stamp != inherited:
		w.stamps = append(w.stamps, bson.E{Key: path, Value: int64(n.stamp)})
	}
}

// talliesOf: per origin the running total and its stamp, what the deciding write saw under the same names with an s, and
// the value underneath where it isn't what the visible one says.
func talliesOf(n *node, shown any) bson.D {
	out := appendTallies(make(bson.D, 0, 2*len(n.inc)+2*len(n.seen)+1), n)
	if len(n.max)+len(n.min) == 0 && !n.baseFollows(shown) {
		out = append(out, bson.E{Key: "b", Value: n.value()})
	}
	return out
}

func appendTallies(out bson.D, n *node) bson.D {
	for _, t := range n.inc {
		name := strconv.Itoa(int(t.origin))
		out = append(out, bson.E{Key: name, Value: t.total.stored()}, bson.E{Key: name + "t", Value: int64(t.at)})
	}
	for _, t := range n.seen {
		name := "s" + strconv.Itoa(int(t.origin))
		out = append(out, bson.E{Key: name, Value: t.total.stored()}, bson.E{Key: name + "t", Value: int64(t.at)})
	}
	return out
}

// stored keeps the kind: an int is an int32 as long as it fits one.
func (n number) stored() any {
	if n.kind == int32s && n.i != int64(int32(n.i)) {
		return bson.A{n.i}
	}
	return n.value()
}

// value is what the deciding write put here, in an array; an empty one is nothing.
func (n *node) value() bson.A {
	if n.kind != scalar {
		return bson.A{}
	}
	return bson.A{n.val}
}

// baseFollows says whether the value underneath can be computed from the visible one.
func (n *node) baseFollows(shown any) bool {
	if n.kind == document || n.kind == array {
		return true
	}
	sum := sumOf(n.inc, n.seen)
	if sum.terms == 0 {
		return true
	}
	base, ok := baseFrom(shown, sum)
	return ok && n.kind == scalar && bsonval.Identical(base, n.val)
}

// baseFrom is what was there before the sum was added, as far as it can be told: of integers, in the visible value's type.
func baseFrom(shown any, sum addition) (any, bool) {
	v, ok := numberOf(shown)
	by, over := sum.number()
	if !ok || over || v.kind == floats || by.kind == floats || by.i == math.MinInt64 {
		return nil, false
	}
	base, exact := v.plus(number{i: -by.i, kind: v.kind})
	return base.value(), exact
}

func extremesOf(n *node) bson.D {
	out := appendExtremes(make(bson.D, 0, len(n.max)+len(n.min)+1), n)
	if n.kind == absent || n.kind == scalar {
		out = append(out, bson.E{Key: "b", Value: n.value()})
	}
	return out
}

func appendExtremes(out bson.D, n *node) bson.D {
	for _, x := range n.max {
		out = append(out, bson.E{Key: "x" + strconv.Itoa(int(x.origin)), Value: bson.A{int64(x.at), x.val}})
	}
	for _, x := range n.min {
		out = append(out, bson.E{Key: "n" + strconv.Itoa(int(x.origin)), Value: bson.A{int64(x.at), x.val}})
	}
	return out
}
