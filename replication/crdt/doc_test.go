package crdt

import (
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func d(pairs ...any) bson.D {
	out := bson.D{}
	for i := 0; i < len(pairs); i += 2 {
		v := pairs[i+1]
		if n, ok := v.(int); ok {
			v = int32(n)
		}
		out = append(out, bson.E{Key: pairs[i].(string), Value: v})
	}
	return out
}

// author writes as one origin.
type author struct {
	o     Origin
	seq   uint64
	clock Stamp
}

func (a *author) next(at int64) Write {
	a.seq++
	a.clock = NewStamp(at, 0, a.o)
	return Write{a.o, a.seq, a.clock}
}

func must(t *testing.T, delta Doc, err error) Doc {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return delta
}

func update(t *testing.T, doc Doc, w Write, kind OpKind, path string, v any) Doc {
	t.Helper()
	op := Op{Kind: kind, Path: bsonval.SplitPath(path), Value: v}
	switch x := v.(type) {
	case bson.A:
		if kind == Push || kind == AddToSet {
			op.Values = x
		}
	case []int:
		op.Index = x
	}
	delta, err := doc.Apply(w, []Op{op})
	return must(t, delta, err)
}

type step struct {
	at   int64
	kind OpKind
	path string
	v    any
}

// Two origins start from one document, write apart, and meet.
func TestTogether(t *testing.T) {
	for _, c := range []struct {
		name  string
		start bson.D
		a, b  []step
		want  bson.D
	}{
		{"sets of different fields", d("x", 1), []step{{2, Set, "x", "a"}}, []step{{3, Set, "y", "b"}}, d("x", "a", "y", "b")},
		{"sets of one field", d("x", 1), []step{{2, Set, "x", "a"}}, []step{{3, Set, "x", "b"}}, d("x", "b")},
		{"a newer child is grafted onto a set", d("a", d("b", "0")), []step{{2, Set, "a", d()}}, []step{{3, Set, "a.b", "b"}}, d("a", d("b", "b"))},
		{"an older child is covered by a set", d("a", d("b", "0")), []step{{3, Set, "a", d()}}, []step{{2, Set, "a.b", "b"}}, d("a", d())},
		{"a newer child makes a scalar a document", d("a", d()), []step{{2, Set, "a", "s"}}, []step{{3, Set, "a.b", "b"}}, d("a", d("b", "b"))},
		{"children of a field that was not there", d(), []step{{2, Set, "a.x", "a"}}, []step{{3, Set, "a.y", "b"}}, d("a", d("x", "a", "y", "b"))},
		{"increments add", d("n", int32(5)), []step{{2, Inc, "n", int32(1)}, {4, Inc, "n", int32(1)}}, []step{{3, Inc, "n", int32(10)}}, d("n", int32(17))},
		{"an increment survives a set it is not in", d("n", int32(5)), []step{{2, Inc, "n", int32(1)}}, []step{{3, Set, "n", int32(0)}}, d("n", int32(1))},
		{"an increment survives a set above it", d("a", d("n", int32(5))), []step{{2, Inc, "a.n", int32(1)}}, []step{{3, Set, "a", d()}}, d("a", d("n", int32(1)))},
		{"a set has the increments it saw", d("n", int32(5)), []step{{2, Inc, "n", int32(1)}, {3, Set, "n", int32(0)}}, nil, d("n", int32(0))},
		{"increments of a field that was not there", d(), []step{{2, Inc, "n", int32(1)}}, []step{{3, Inc, "n", int32(2)}}, d("n", int32(3))},
		{"an increment below an unset", d("n", int32(5)), []step{{2, Unset, "n", nil}}, []step{{3, Inc, "n", int32(2)}}, d("n", int32(2))},
		{"an int outgrows itself together", d("n", int32(1<<31-2)), []step{{2, Inc, "n", int32(1)}}, []step{{3, Inc, "n", int32(1)}}, d("n", int64(1<<31))},
		{"a long saturates", d("n", int64(1<<63-3)), []step{{2, Inc, "n", int32(2)}}, []step{{3, Inc, "n", int32(2)}}, d("n", int64(1<<63-1))},
		{"an increment below what was unset", d("a", d("n", int32(5))), []step{{2, Unset, "a", nil}, {3, Inc, "a.n", int32(2)}}, nil, d("a", d("n", int32(2)))},
		{"doubles add", d("n", 0.5), []step{{2, Inc, "n", 0.25}}, []step{{3, Inc, "n", int32(1)}}, d("n", 1.75)},
		{"maxima", d("n", int32(5)), []step{{2, Max, "n", int32(9)}}, []step{{3, Max, "n", int32(7)}}, d("n", int32(9))},
		{"a maximum older than a set", d("n", int32(5)), []step{{2, Max, "n", int32(9)}}, []step{{3, Set, "n", int32(1)}}, d("n", int32(1))},
		{"a maximum newer than a set", d("n", int32(5)), []step{{4, Max, "n", int32(9)}}, []step{{3, Set, "n", int32(1)}}, d("n", int32(9))},
		{"pushes", d("l", bson.A{"0"}), []step{{2, Push, "l", bson.A{"a", "aa"}}}, []step{{3, Push, "l", bson.A{"b"}}}, d("l", bson.A{"0", "a", "aa", "b"})},
		{"pushes to a field that was not there", d(), []step{{2, Push, "l", bson.A{"a"}}}, []step{{3, Push, "l", bson.A{"b"}}}, d("l", bson.A{"a", "b"})},
		{"one element added twice to a set", d("l", bson.A{}), []step{{2, AddToSet, "l", bson.A{"a", "x"}}}, []step{{3, AddToSet, "l", bson.A{"x"}}}, d("l", bson.A{"a", "x"})},
		{"added again while removed", d("l", bson.A{"x"}), []step{{2, Remove, "l", []int{0}}, {4, AddToSet, "l", bson.A{"x"}}}, []step{{3, Remove, "l", []int{0}}}, d("l", bson.A{"x"})},
		{"popped in both places", d("l", bson.A{"x", "y"}), []step{{2, Remove, "l", []int{0}}}, []step{{3, Remove, "l", []int{0}}}, d("l", bson.A{"y"})},
		{"edits of different elements", d("l", bson.A{d("v", 1), d("v", 2)}), []step{{2, Set, "l.0.v", "a"}}, []step{{3, Set, "l.1.v", "b"}}, d("l", bson.A{d("v", "a"), d("v", "b")})},
		{"an edit does not save a removed element", d("l", bson.A{d("v", 1)}), []step{{2, Remove, "l", []int{0}}}, []step{{3, Set, "l.0.v", "b"}}, d("l", bson.A{})},
		{"increments in an element", d("l", bson.A{d("n", int32(1))}), []step{{2, Inc, "l.0.n", int32(1)}, {4, Push, "l", bson.A{"z"}}}, []step{{3, Inc, "l.0.n", int32(1)}}, d("l", bson.A{d("n", int32(3)), "z"})},
		{"a newer array covers older pushes", d("l", bson.A{}), []step{{2, Push, "l", bson.A{"a"}}}, []step{{3, Set, "l", bson.A{"b"}}}, d("l", bson.A{"b"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := author{o: 1}, author{o: 2}
			start, err := Doc{}.Insert(a.next(1), append(d("_id", 1), c.start...))
			x := must(t, start, err)
			y := x
			for _, s := range c.a {
				x = x.Merge(update(t, x, a.next(s.at), s.kind, s.path, s.v))
			}
			for _, s := range c.b {
				y = y.Merge(update(t, y, b.next(s.at), s.kind, s.path, s.v))
			}
			want := append(d("_id", 1), c.want...)
			for _, got := range []Doc{x.Merge(y), y.Merge(x)} {
				if fmt.Sprintf("%#v", got.Visible()) != fmt.Sprintf("%#v", want) {
					t.Errorf("got %v, want %v", got.Visible(), want)
				}
			}
		})
	}
}

func TestLifeAndDeath(t *testing.T) {
	a, b := author{o: 1}, author{o: 2}
	ins, err := Doc{}.Insert(a.next(1), d("_id", 1, "n", int32(0)))
	doc := must(t, ins, err)
	upd := update(t, doc, b.next(9), Inc, "n", int32(1))
	gone, err := doc.Delete(a.next(2))
	doc = doc.Merge(must(t, gone, err))
	if doc = doc.Merge(upd); doc.Alive() || doc.Visible() != nil {
		t.Fatalf("an update that did not see the delete brought %v back", doc.Visible())
	}
	again, err := doc.Insert(a.next(3), d("_id", 1, "n", int32(7)))
	doc = doc.Merge(must(t, again, err)).Merge(upd).Merge(gone)
	if got := fmt.Sprint(doc.Visible()); got != fmt.Sprint(d("_id", 1, "n", int32(7))) {
		t.Fatalf("inserted again: %s", got)
	}
	if _, err := doc.Insert(a.next(4), d("_id", 1)); err == nil {
		t.Error("an insert over a living document")
	}
}

// What a document with three updated fields costs beside its values, with writes of n origins in it.
func TestHiddenFieldIsSmall(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 6, 12} {
		authors := make([]author, n)
		for i := range authors {
			authors[i] = author{o: Origin(i + 1), seq: 1 << 20}
		}
		ins, err := Doc{}.Insert(authors[0].next(200e9), d("_id", 1, "name", "x", "mail", "y", "text", "z", "by", "w"))
		doc := must(t, ins, err)
		for i := range max(n, 3) {
			field := []string{"name", "mail", "text"}[i%3]
			doc = doc.Merge(update(t, doc, authors[i%n].next(200e9+1e6*int64(i+1)), Set, field, "v"))
		}
		doc = doc.WithLocal(1 << 20)
		with, err := doc.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		cost := len(with) - bsonval.Size(doc.Visible())
		t.Logf("%d origins: %d bytes, the bar is %d", n, cost, 60+12*n)
		if n >= 3 && cost > 60+12*n {
			t.Errorf("%d origins: %d bytes, the bar is %d", n, cost, 60+12*n)
		}
	}
}

func TestAdoption(t *testing.T) {
	plain := d("_id", 1, "n", int32(3), "l", bson.A{"x"})
	doc, err := FromDocument(plain)
	if err != nil {
		t.Fatal(err)
	}
	b := author{o: 2}
	doc = doc.Merge(update(t, doc, b.next(5), Push, "l", bson.A{"y"}))
	if got, want := fmt.Sprint(doc.Visible()), fmt.Sprint(d("_id", 1, "n", int32(3), "l", bson.A{"x", "y"})); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCompactForgetsOnlyWhatIsGone(t *testing.T) {
	for seed := range seeds(t, 1000) {
		w := newWorld(t, uint64(seed)+1<<33, 3)
		for range 25 {
			if w.IntN(3) > 0 {
				w.write()
			} else {
				w.gossip()
			}
		}
		doc := w.merged()
		cut := doc.Newest()
		c := doc.Compact(cut)
		if fmt.Sprint(c.Visible()) != fmt.Sprint(doc.Visible()) {
			w.fail("seed %d: compaction shows:\n%v\n%v", seed, doc.Visible(), c.Visible())
		}
		w.bytesOf(c)
		x, _ := c.Digest()
		if y, _ := doc.Digest(); x != y {
			w.fail("seed %d: compaction changes the digest:\n%v\n%v", seed, doc.Document(), c.Document())
		}
		// Whoever still has the long form and whoever has the short one agree on what comes next.
		at := Write{9, 1, Next(cut, 0, 9)}
		if !doc.Alive() {
			continue
		}
		delta, err := c.Apply(at, []Op{w.op(c)})
		if err != nil {
			continue
		}
		if l, s := doc.Merge(delta), c.Merge(delta); fmt.Sprint(l.Visible()) != fmt.Sprint(s.Visible()) {
			w.fail("seed %d: after compaction:\n%v\n%v\n%v\n%v", seed, l.Document(), s.Document(), doc.Document(), delta.Document())
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for seed := range 40 {
		w := newWorld(&testing.T{}, uint64(seed), 3)
		for range 20 {
			w.write()
			w.gossip()
		}
		b, err := w.merged().Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := Unmarshal(b)
		if err != nil {
			return
		}
		doc.Visible()
		out, err := doc.Marshal()
		if err != nil {
			return
		}
		if _, err := Unmarshal(out); err != nil {
			t.Fatalf("what was written can't be read: %v\n%v", err, doc.Document())
		}
		again := doc.Merge(doc.Portable())
		again.Compact(maxStamp).Visible()
	})
}
