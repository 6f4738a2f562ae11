package crdt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// OpKind is what an operation does at its path.
type OpKind uint8

// The operations an update is made of. What an origin can only resolve ($mul, $rename, $sort …) comes as Set and Unset.
const (
	Set      OpKind = iota + 1 // Value replaces what is there
	Unset                      // what is there goes
	Inc                        // Value, a number, is added
	Max                        // Value, if it is greater
	Min                        // Value, if it is less
	Push                       // Values are appended to an array
	AddToSet                   // Values are appended, each unless an equal one is there
	Remove                     // the elements at the positions Index go
)

// Op is one resolved operation of an update: positional operators are array positions already.
type Op struct {
	Kind   OpKind
	Path   []string
	Value  any
	Values []any
	Index  []int
}

// Write is who writes, when, as which of its writes.
type Write struct {
	Origin Origin
	Seq    uint64
	Stamp  Stamp
}

// ErrNoPath is what Apply answers for an operation whose path leads below a value that has nothing below it, or that
// the value there does not take. The evaluator refuses such updates before they come here.
var ErrNoPath = errors.New("operation does not fit the document")

// Insert is the delta that brings a document that is not there (again).
func (d Doc) Insert(w Write, doc bson.D) (Delta, error) {
	if d.Alive() {
		return Delta{}, errors.New("insert: the document is there")
	}
	i := bsonval.Find(doc, "_id")
	if i < 0 {
		return Delta{}, errors.New("insert: no _id")
	}
	rest := make(bson.D, 0, len(doc)-1)
	rest = append(append(rest, doc[:i]...), doc[i+1:]...)
	root := nodeOf(rest, w.Stamp)
	root.stamp = 0
	out := d.delta(w)
	out.id, out.alive, out.created, out.root = doc[i].Value, true, w.Stamp, root.seal()
	return out, nil
}

// Delete is the delta that ends a document's life.
func (d Doc) Delete(w Write) (Delta, error) {
	if !d.Alive() {
		return Delta{}, errors.New("delete: the document is not there")
	}
	out := d.delta(w)
	out.deaths, out.alive, out.created = append(slices.Clone(d.deaths), w.Stamp), false, w.Stamp
	return out, nil
}

// Apply is the delta of an update; d.Merge of it is the document after.
func (d Doc) Apply(w Write, ops []Op) (Delta, error) {
	if !d.Alive() || d.root == nil {
		return Delta{}, errors.New("update: the document is not there")
	}
	if last := d.Newest(); last >= w.Stamp {
		return Delta{}, fmt.Errorf("update: stamp %v is not newer than the document's %v", w.Stamp, last)
	}
	out := d.delta(w)
	cur := d.root
	for i, op := range ops {
		n, err := change{w, op}.at(cur, 0, op.Path)
		if err != nil {
			return Delta{}, fmt.Errorf("update %s: %w", strings.Join(op.Path, "."), err)
		}
		if n == nil {
			continue
		}
		if out.root == nil {
			out.root = n
		} else {
			out.root = join(out.root, n)
		}
		if i+1 < len(ops) {
			base := cur.base
			cur = join(cur, n)
			cur.base = base
		}
	}
	if out.root == nil {
		out.root = (&node{kind: document}).seal()
	}
	return out, nil
}

func (d Doc) delta(w Write) Delta {
	return Delta{id: d.id, deaths: d.deaths, alive: d.alive, dots: []Dot1{{w.Origin, w.Seq}}}
}

// change is one operation on its way down its path.
type change struct {
	Write
	op Op
}

// at builds the part of the delta from here down; cur is the state here, nil for none. A nil node without an error is
// an operation without effect.
func (c change) at(cur *node, cover Stamp, path []string) (*node, error) {
	if len(path) == 0 {
		return c.leaf(cur, cover)
	}
	if cur != nil && cur.kind == array {
		return c.element(cur, cover, path)
	}
	if v, ok := cur.render(); ok && cur.kind != document {
		return nil, fmt.Errorf("%w: %s below %s", ErrNoPath, path[0], bsonval.TypeName(v))
	}
	n, err := c.at(cur.kid(path[0]), cover, path[1:])
	if n == nil || err != nil {
		return nil, err
	}
	return (&node{stamp: cover, kind: document, kids: []kid{{path[0], n}}}).seal(), nil
}

func (c change) element(cur *node, cover Stamp, path []string) (*node, error) {
	i, ok := bsonval.Index(path[0])
	if !ok {
		return nil, fmt.Errorf("%w: %s below an array", ErrNoPath, path[0])
	}
	shown := cur.shown()
	if i >= len(shown) {
		return c.beyond(cur, path)
	}
	e := shown[i]
	n, err := c.at(e.n, e.dot.Stamp, path[1:])
	if n == nil || err != nil {
		return nil, err
	}
	return (&node{stamp: cover, kind: array, elems: []elem{{e.dot, n}}}).seal(), nil
}

// beyond writes past an array's end: the array is padded with null and set as a whole.
func (c change) beyond(cur *node, path []string) (*node, error) {
	v, _ := cur.render()
	if c.op.Kind == Unset || c.op.Kind == Remove {
		return nil, nil
	}
	value := c.op.Value
	if c.op.Kind == Push || c.op.Kind == AddToSet {
		value = bson.A(c.op.Values)
	}
	d, err := bsonval.Set(bson.D{{Key: "a", Value: v}}, append([]string{"a"}, path...), value)
	if err != nil {
		return nil, err
	}
	return c.set(cur, d[0].Value), nil
}

func (c change) leaf(cur *node, cover Stamp) (*node, error) {
	switch c.op.Kind {
	case Set:
		return c.set(cur, c.op.Value), nil
	case Unset:
		n := &node{stamp: c.Stamp}
		n.absorb(cur, c.Stamp)
		return n.seal(), nil
	case Inc:
		return c.inc(cur, cover)
	case Max:
		return c.extreme(cur, cover, 1)
	case Min:
		return c.extreme(cur, cover, -1)
	case Push, AddToSet:
		return c.push(cur, cover)
	case Remove:
		return c.remove(cur, cover)
	}
	return nil, fmt.Errorf("%w: operation %d", ErrNoPath, c.op.Kind)
}

// set replaces what is here, and remembers the tallies it saw: they are part of what it replaces.
func (c change) set(cur *node, v any) *node {
	n := nodeOf(v, c.Stamp)
	n.absorb(cur, c.Stamp)
	return n.seal()
}

// absorb marks all tallies of cur as seen by the write that made n.
func (n *node) absorb(cur *node, stamp Stamp) {
	if cur == nil || !cur.counts {
		return
	}
	n.seen = cur.inc
	for _, k := range cur.kids {
		if !k.n.counts {
			continue
		}
		i, ok := findKid(n.kids, k.key)
		if !ok {
			n.kids = slices.Insert(n.kids, i, kid{k.key, &node{stamp: stamp}})
		}
		n.kids[i].n.absorb(k.n, stamp)
		n.kids[i].n.seal()
	}
}

func (c change) inc(cur *node, cover Stamp) (*node, error) {
	v, present := cur.render()
	if !present {
		v = int32(0)
	}
	sum, err := bsonval.Add(v, c.op.Value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPath, err)
	}
	by, ok := numberOf(c.op.Value)
	if _, fits := numberOf(sum); !ok || !fits || cur != nil && len(cur.max)+len(cur.min) > 0 {
		return c.set(cur, sum), nil
	}
	t, ok := c.tally(cur, by, sum)
	if !ok {
		return c.set(cur, sum), nil
	}
	return (&node{stamp: cover, inc: []tally{t}}).seal(), nil
}

// tally is this origin's next running total. Its kind is what the origin saw since the last set, so that a counter that
// became a long stays one.
func (c change) tally(cur *node, by number, sum any) (tally, bool) {
	t := tally{origin: c.Origin, at: c.Stamp, total: by}
	if cur != nil {
		if old, ok := tallyOf(cur.inc, c.Origin); ok {
			if _, live := old.since(cur.seen); !live && old.total.kind == int64s {
				old.total.kind = int32s
			}
			if t.total, ok = old.total.plus(by); !ok {
				return t, false
			}
		}
	}
	if s, _ := numberOf(sum); s.kind > t.total.kind && t.total.kind == int32s && s.kind == int64s {
		t.total.kind = int64s
	}
	return t, true
}

func (c change) extreme(cur *node, cover Stamp, sign int) (*node, error) {
	v, present := cur.render()
	if present && bsonval.Compare(c.op.Value, v)*sign <= 0 {
		return nil, nil
	}
	if cur != nil && (cur.kind == document || cur.kind == array || added(cur) || len(cur.opposite(sign)) > 0) {
		return c.set(cur, c.op.Value), nil
	}
	switch c.op.Value.(type) {
	case bson.D, bson.A:
		return c.set(cur, c.op.Value), nil
	}
	n := &node{stamp: cover}
	x := []extreme{{c.Origin, c.Stamp, c.op.Value}}
	if sign > 0 {
		n.max = x
	} else {
		n.min = x
	}
	return n.seal(), nil
}

func (n *node) opposite(sign int) []extreme {
	if sign > 0 {
		return n.min
	}
	return n.max
}

// added says that increments are part of the visible value.
func added(n *node) bool { return sumOf(n.inc, n.seen).terms > 0 }

func (c change) push(cur *node, cover Stamp) (*node, error) {
	n := &node{stamp: cover, kind: array}
	var have map[string]bool
	next := uint32(0)
	if v, ok := cur.render(); ok {
		if cur.kind != array {
			return nil, fmt.Errorf("%w: push to %s", ErrNoPath, bsonval.TypeName(v))
		}
		if last := len(cur.elems) - 1; last >= 0 && cur.elems[last].dot.Stamp == c.Stamp {
			next = cur.elems[last].dot.Index + 1
		}
	}
	if c.op.Kind == AddToSet {
		have = members(cur)
	}
	for _, v := range c.op.Values {
		if have != nil {
			id := string(bsonval.Canonical(v))
			if have[id] {
				continue
			}
			have[id] = true
		}
		e := nodeOf(v, c.Stamp)
		e.uniq = c.op.Kind == AddToSet
		n.elems = append(n.elems, elem{Dot{c.Stamp, next}, e})
		next++
	}
	if len(n.elems) == 0 && cur != nil && cur.kind == array {
		return nil, nil
	}
	return n.seal(), nil
}

func members(cur *node) map[string]bool {
	have := map[string]bool{}
	if cur == nil || cur.kind != array {
		return have
	}
	for _, e := range cur.shown() {
		have[string(bsonval.Canonical(e.val))] = true
	}
	return have
}

// remove names the dots of the elements at the given positions, and of those that only hide behind them.
func (c change) remove(cur *node, cover Stamp) (*node, error) {
	if cur == nil || cur.kind != array {
		return nil, fmt.Errorf("%w: remove elements of no array", ErrNoPath)
	}
	shown := cur.shown()
	gone, equal := map[Dot]bool{}, map[string]bool{}
	for _, i := range c.op.Index {
		if i < 0 || i >= len(shown) {
			return nil, fmt.Errorf("%w: element %d of %d", ErrNoPath, i, len(shown))
		}
		gone[shown[i].dot] = true
		equal[string(bsonval.Canonical(shown[i].val))] = true
	}
	visible := map[Dot]bool{}
	for _, e := range shown {
		visible[e.dot] = true
	}
	n := &node{stamp: cover, kind: array}
	for _, e := range cur.elems {
		if v, ok := e.n.render(); gone[e.dot] || ok && !visible[e.dot] && equal[string(bsonval.Canonical(v))] {
			n.elems = append(n.elems, elem{e.dot, (&node{dead: c.Stamp}).seal()})
		}
	}
	if len(n.elems) == 0 {
		return nil, nil
	}
	return n.seal(), nil
}

// nodeOf is the state of a value written whole.
func nodeOf(v any, stamp Stamp) *node {
	n := &node{stamp: stamp}
	switch x := v.(type) {
	case bson.D:
		n.kind, n.base = document, make([]string, 0, len(x))
		for _, f := range x {
			if i, dup := findKid(n.kids, f.Key); !dup {
				n.kids = slices.Insert(n.kids, i, kid{f.Key, nodeOf(f.Value, stamp)})
				n.base = append(n.base, f.Key)
			}
		}
	case bson.A:
		n.kind, n.elems = array, make([]elem, 0, len(x))
		for i, v := range x {
			n.elems = append(n.elems, elem{Dot{stamp, uint32(i)}, nodeOf(v, stamp)})
		}
	default:
		n.kind, n.val = scalar, v
	}
	return n.seal()
}
