package crdt

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// A world is a few replicas of one document that write, and a network that delivers whatever it likes.
type world struct {
	*rand.Rand
	t        *testing.T
	replicas []replica
	deltas   []Doc
	log      []string
}

type replica struct {
	doc   Doc
	clock Stamp
	seq   uint64
}

func newWorld(t *testing.T, seed uint64, n int) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, replicas: make([]replica, n)}
	if seed%4 > 0 {
		w.write()
		for i := range w.replicas {
			w.replicas[i].doc = w.replicas[i].doc.Merge(w.deltas[0])
		}
	}
	return w
}

// write does something random at a random replica, as its own state allows.
func (w *world) write() {
	i := w.IntN(len(w.replicas))
	r := &w.replicas[i]
	o := Origin(i + 1)
	r.clock = Next(max(r.clock, r.doc.Newest()), int64(w.IntN(40)), o)
	r.seq++
	at := Write{o, r.seq, r.clock}
	delta, what, err := w.delta(r.doc, at)
	if err != nil {
		return
	}
	r.doc = r.doc.Merge(delta)
	w.deltas = append(w.deltas, delta)
	w.log = append(w.log, fmt.Sprintf("%d %v %s -> %v", o, at.Stamp, what, r.doc.Visible()))
}

func (w *world) delta(d Doc, at Write) (Doc, string, error) {
	if !d.Alive() {
		doc := bson.D{{Key: "_id", Value: "x"}, {Key: "b", Value: int32(1)}, {Key: "a", Value: w.value(2)}, {Key: "n", Value: int32(5)}}
		out, err := d.Insert(at, doc)
		return out, fmt.Sprint("insert ", doc), err
	}
	if w.IntN(25) == 0 {
		out, err := d.Delete(at)
		return out, "delete", err
	}
	ops := []Op{w.op(d)}
	out, err := d.Apply(at, ops)
	return out, fmt.Sprint(ops), err
}

var testPaths = [][]string{{"a"}, {"b"}, {"n"}, {"a", "x"}, {"a", "y"}, {"a", "0"}, {"a", "0", "x"}, {"a", "x", "z"}, {"l"}, {"l", "0"}, {"l", "1", "x"}, {"q", "r"}, {"~.$/"}}

func (w *world) op(d Doc) Op {
	op := Op{Kind: OpKind(1 + w.IntN(8)), Path: testPaths[w.IntN(len(testPaths))]}
	switch op.Kind {
	case Set:
		op.Value = w.value(2)
	case Inc:
		op.Value = []any{int32(1), int32(-2), int64(3), 0.5, int32(1 << 30), int64(1 << 62)}[w.IntN(6)]
	case Max, Min:
		op.Value = []any{int32(w.IntN(10)), "s", 2.5, int64(w.IntN(20))}[w.IntN(4)]
	case Push, AddToSet:
		for range 1 + w.IntN(2) {
			op.Values = append(op.Values, w.value(1))
		}
	case Remove:
		v := bsonval.Get(d.Visible(), op.Path)
		if a, ok := v.(bson.A); ok && len(a) > 0 {
			op.Index = []int{w.IntN(len(a))}
		}
	}
	return op
}

func (w *world) value(depth int) any {
	switch k := w.IntN(9); {
	case k < 2:
		return int32(w.IntN(4))
	case k == 2:
		return float64(w.IntN(4))
	case k == 3:
		return "s"
	case k == 4:
		return nil
	case depth == 0:
		return int64(w.IntN(3))
	case k < 7:
		d := bson.D{}
		for _, key := range []string{"x", "y", "0", "z"}[w.IntN(4):] {
			d = append(d, bson.E{Key: key, Value: w.value(depth - 1)})
		}
		return d
	}
	a := bson.A{}
	for range w.IntN(3) {
		a = append(a, w.value(depth-1))
	}
	return a
}

// gossip brings a replica some old delta or another's whole state.
func (w *world) gossip() {
	r := &w.replicas[w.IntN(len(w.replicas))]
	if w.IntN(3) == 0 {
		r.doc = r.doc.Merge(w.replicas[w.IntN(len(w.replicas))].doc)
	} else if len(w.deltas) > 0 {
		r.doc = r.doc.Merge(w.deltas[w.IntN(len(w.deltas))])
	}
}

func (w *world) bytesOf(d Doc) []byte {
	w.t.Helper()
	b, err := d.Portable().Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	back, err := Unmarshal(b)
	if err != nil {
		w.fail("read back %v: %v", d.Document(), err)
	}
	again, err := back.Marshal()
	if err != nil || !bytes.Equal(b, again) {
		w.fail("round trip:\n%v\n%v", d.Portable().Document(), back.Document())
	}
	return b
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

// merged is the state after all deltas in some order, some twice, some through a detour by bytes.
func (w *world) merged() Doc {
	var d Doc
	order := w.Perm(len(w.deltas))
	for _, i := range order {
		d = d.Merge(w.deltas[i])
		switch w.IntN(4) {
		case 0:
			d = d.Merge(w.deltas[order[w.IntN(len(order))]])
		case 1:
			back, err := Unmarshal(w.bytesOf(d))
			if err != nil {
				w.fail("%v", err)
			}
			d = back
		}
	}
	return d
}

func seeds(t *testing.T, n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

func TestAnyOrderEndsEqual(t *testing.T) {
	for seed := range seeds(t, 1000) {
		w := newWorld(t, uint64(seed), 2+seed%3)
		for range 4 + w.IntN(30) {
			if w.IntN(2) == 0 {
				w.write()
			} else {
				w.gossip()
			}
		}
		if len(w.deltas) == 0 {
			continue
		}
		first := w.merged()
		for range 2 {
			if second := w.merged(); !bytes.Equal(w.bytesOf(first), w.bytesOf(second)) {
				w.fail("seed %d: two orders, two states:\n%v\n%v", seed, first.Document(), second.Document())
			}
		}
		all := first
		for _, r := range w.replicas {
			w.bytesOf(r.doc)
			all = all.Merge(r.doc)
		}
		if !bytes.Equal(w.bytesOf(all), w.bytesOf(first)) {
			w.fail("seed %d: replicas' states say more than their deltas:\n%v\n%v", seed, all.Document(), first.Document())
		}
	}
}

func TestAssociative(t *testing.T) {
	for seed := range seeds(t, 1000) {
		w := newWorld(t, uint64(seed)+1<<32, 3)
		for range 20 {
			if w.IntN(3) > 0 {
				w.write()
			} else {
				w.gossip()
			}
		}
		a, b, c := w.replicas[0].doc, w.replicas[1].doc, w.replicas[2].doc
		x, y := a.Merge(b).Merge(c), a.Merge(b.Merge(c))
		z := c.Merge(b).Merge(a)
		if !bytes.Equal(w.bytesOf(x), w.bytesOf(y)) || !bytes.Equal(w.bytesOf(x), w.bytesOf(z)) {
			w.fail("seed %d: order of merges shows:\n%v\n%v\n%v", seed, x.Document(), y.Document(), z.Document())
		}
	}
}
