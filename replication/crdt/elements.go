package crdt

import (
	"encoding/binary"
	"errors"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// array encodes the elements that show as the value, and beside it their dots, the removed ones' and those that are
// there but don't show.
func (w *encoder) array(path string, n *node) bson.A {
	shown := n.shown()
	out := make(bson.A, 0, len(shown))
	dots := make(map[Dot]bool, len(shown))
	for i, e := range shown {
		dots[e.dot] = true
		v, _ := w.node(below(path, strconv.Itoa(i)), e.n, e.dot.Stamp, true)
		out = append(out, v)
	}
	var dead, hidden []elem
	for _, e := range n.elems {
		switch {
		case e.n.dead != 0:
			dead = append(dead, e)
		case !dots[e.dot]:
			hidden = append(hidden, e)
		}
	}
	if len(dead) > 0 || !n.plain(shown) {
		w.elements = append(w.elements, bson.E{Key: path, Value: bson.Binary{Data: packDots(shown, dead)}})
	}
	if len(hidden) > 0 {
		w.hidden = append(w.hidden, bson.E{Key: path, Value: hiddenOf(hidden)})
	}
	return out
}

// plain says that the elements' dots are those of the write that decided the array.
func (n *node) plain(shown []shownElem) bool {
	for i, e := range shown {
		if e.n.uniq || e.dot != (Dot{n.stamp, uint32(i)}) {
			return false
		}
	}
	return true
}

// packDots: the number of elements that show, their dots (stamp as difference to the one before, index doubled plus one
// if $addToSet brought it), then for each removed one its dot and how much later the removal was.
func packDots(shown []shownElem, dead []elem) []byte {
	b := binary.AppendUvarint(nil, uint64(len(shown)))
	var prev Stamp
	for _, e := range shown {
		b = appendStamp(b, prev, e.dot.Stamp)
		index := uint64(e.dot.Index) << 1
		if e.n.uniq {
			index |= 1
		}
		b, prev = binary.AppendUvarint(b, index), e.dot.Stamp
	}
	prev = 0
	for _, e := range dead {
		b = appendStamp(b, prev, e.dot.Stamp)
		b = binary.AppendUvarint(b, uint64(e.dot.Index))
		b, prev = appendStamp(b, e.dot.Stamp, e.n.dead), e.dot.Stamp
	}
	return b
}

var errDots = errors.New("malformed dots of an array")

type packedDot struct {
	dot  Dot
	uniq bool
	dead Stamp
}

// unpackDots reads what packDots wrote. want is the number of elements that show.
func unpackDots(b []byte, want int) (shown, dead []packedDot, err error) {
	r := varints{b: b}
	if r.unsigned() != uint64(want) || r.bad {
		return nil, nil, errDots
	}
	var prev Stamp
	for range want {
		prev += Stamp(r.signed())
		index := r.unsigned()
		shown = append(shown, packedDot{dot: Dot{prev, uint32(index >> 1)}, uniq: index&1 == 1})
		if index>>33 != 0 {
			return nil, nil, errDots
		}
	}
	prev = 0
	for len(r.b) > 0 && !r.bad {
		prev += Stamp(r.signed())
		index := r.unsigned()
		dead = append(dead, packedDot{dot: Dot{prev, uint32(index)}, dead: prev + Stamp(r.signed())})
		if index>>32 != 0 {
			return nil, nil, errDots
		}
	}
	if r.bad {
		return nil, nil, errDots
	}
	return shown, dead, nil
}

type varints struct {
	b   []byte
	bad bool
}

func (r *varints) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	return v + r.skip(n)
}

func (r *varints) signed() int64 {
	v, n := binary.Varint(r.b)
	return v + int64(r.skip(n))
}

func (r *varints) skip(n int) uint64 {
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return 0
}

// hiddenOf encodes elements that don't show, each as a document of one field with its own state.
func hiddenOf(elems []elem) bson.A {
	out := make(bson.A, 0, len(elems))
	for _, e := range elems {
		w := encoder{}
		holder := &node{kind: document, base: []string{"e"}, kids: []kid{{"e", e.n}}}
		body := w.root(nil, holder, e.dot.Stamp)
		d := bson.D{{Key: "s", Value: int64(e.dot.Stamp)}, {Key: "i", Value: int64(e.dot.Index)}, {Key: "u", Value: e.n.uniq}}
		out = append(out, append(d, bson.E{Key: "v", Value: append(bson.D{}, body...)}, bson.E{Key: Field, Value: w.appendTo(bson.D{})}))
	}
	return out
}
