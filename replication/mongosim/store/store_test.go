package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"popfleet/replication/bsonval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ns = Namespace{"d", "c"}

func doc(t testing.TB, fields ...bson.E) *Doc {
	t.Helper()
	d, err := NewDoc(bson.D(fields))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func e(k string, v any) bson.E {
	if i, ok := v.(int); ok {
		v = int32(i) // documents hold BSON's integers only
	}
	return bson.E{Key: k, Value: v}
}

func spec(name string, pattern bson.D, set func(*Spec)) *Spec {
	s := &Spec{Name: name, Pattern: pattern}
	for _, f := range pattern {
		s.Keys = append(s.Keys, Part(f.Key, int(f.Value.(int32))))
	}
	if set != nil {
		set(s)
	}
	return s
}

func unique(s *Spec) { s.Unique = true }

func TestKeysOf(t *testing.T) {
	a := func(v ...any) bson.A { return bson.A(v) }
	und := bson.Undefined{}
	for _, c := range []struct {
		name    string
		pattern bson.D
		sparse  bool
		doc     bson.D
		want    [][]any
		err     error
	}{
		{"scalar", bson.D{e("a", 1)}, false, bson.D{e("a", 5)}, [][]any{{5}}, nil},
		{"missing", bson.D{e("a", 1)}, false, bson.D{}, [][]any{{nil}}, nil},
		{"missing sparse", bson.D{e("a", 1)}, true, bson.D{}, nil, nil},
		{"null sparse", bson.D{e("a", 1)}, true, bson.D{e("a", nil)}, [][]any{{nil}}, nil},
		{"array", bson.D{e("a", 1)}, false, bson.D{e("a", a(1, 2))}, [][]any{{1}, {2}}, nil},
		{"empty array", bson.D{e("a", 1)}, false, bson.D{e("a", a())}, [][]any{{und}}, nil},
		{"nested array", bson.D{e("a", 1)}, false, bson.D{e("a", a(a(1, 2)))}, [][]any{{a(1, 2)}}, nil},
		{"dotted", bson.D{e("a.b", 1)}, false, bson.D{e("a", bson.D{e("b", 7)})}, [][]any{{7}}, nil},
		{"dotted through array", bson.D{e("a.b", 1)}, false, bson.D{e("a", a(bson.D{e("b", 1)}, bson.D{}, 3))}, [][]any{{1}, {nil}, {nil}}, nil},
		{"dotted into empty array", bson.D{e("a.b", 1)}, false, bson.D{e("a", a())}, [][]any{{nil}}, nil},
		{"position", bson.D{e("a.1", 1)}, false, bson.D{e("a", a(5, 6))}, [][]any{{6}}, nil},
		{"two of one array", bson.D{e("a.b", 1), e("a.c", 1)}, false,
			bson.D{e("a", a(bson.D{e("b", 1), e("c", 2)}, bson.D{e("b", 3)}))}, [][]any{{1, 2}, {3, nil}}, nil},
		{"array and scalar", bson.D{e("a", 1), e("z", -1)}, false, bson.D{e("a", a(1, 2)), e("z", 9)}, [][]any{{1, 9}, {2, 9}}, nil},
		{"parallel", bson.D{e("a", 1), e("b", 1)}, false, bson.D{e("a", a(1)), e("b", a(1))}, nil, ErrParallel},
		{"compound sparse keeps one of two", bson.D{e("a", 1), e("b", 1)}, true, bson.D{e("b", 1)}, [][]any{{nil, 1}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec("x", c.pattern, func(s *Spec) { s.Sparse = c.sparse })
			got, _, err := s.keysOf(c.doc)
			if !errors.Is(err, c.err) || fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("keys %v, %v; want %v, %v", got, err, c.want, c.err)
			}
		})
	}
}

// check compares every index with what the documents say, and natural order with the map.
func check(t *testing.T, s *Store) {
	t.Helper()
	for _, db := range s.dbs {
		for _, c := range db {
			if c.records.Len() != len(c.byKey) {
				t.Fatalf("%s: %d records, %d keys", c.ns, c.records.Len(), len(c.byKey))
			}
			for _, x := range c.indexes {
				want, err := c.build(x.Spec)
				if err != nil {
					t.Fatalf("%s: index %s broke its rule: %v", c.ns, x.Name, err)
				}
				same := slices.EqualFunc(want.tree.Items(), x.tree.Items(), func(a, b entry) bool { return x.compare(a, b) == 0 && a.doc == b.doc })
				if !same {
					t.Fatalf("%s: index %s differs from a fresh build: %d and %d entries", c.ns, x.Name, x.tree.Len(), want.tree.Len())
				}
			}
		}
	}
}

func all(s *Store, q Query) (docs []*Doc) {
	sc := s.Open(ns, q)
	for d, ok := sc.Next(); ok; d, ok = sc.Next() {
		docs = append(docs, d)
	}
	return docs
}

func randomBody(r *rand.Rand, id int) bson.D {
	d := bson.D{e("_id", int32(id))}
	if r.IntN(4) > 0 {
		d = append(d, e("u", int32(r.IntN(30))))
	}
	switch r.IntN(4) {
	case 0:
		d = append(d, e("a", bson.A{int32(r.IntN(5)), int32(r.IntN(5))}))
	case 1:
		d = append(d, e("a", int32(r.IntN(5))))
	case 2:
		d = append(d, e("a", bson.A{}))
	}
	return append(d, e("n", int64(r.IntN(100))))
}

// Random commits, schema changes, marks and reverts: after each revert the documents are byte for byte those of the mark,
// and every index agrees with a fresh build.
func TestRandomHistoryRevertsExactly(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := New(Options{})
		at := map[Guarantee]string{Journalled: "", Majority: ""}
		for step := range 400 {
			randomStep(t, r, s)
			switch r.IntN(40) {
			case 0:
				s.Flush(Journalled)
				at[Journalled] = dump(s)
			case 1:
				s.Flush(Majority)
				at[Journalled], at[Majority] = dump(s), dump(s)
			case 2:
				g := []Guarantee{Journalled, Majority}[r.IntN(2)]
				s.Revert(g)
				if got := dump(s); got != at[g] {
					t.Fatalf("seed %d step %d: revert to %v gave\n%s\nwant\n%s", seed, step, g, got, at[g])
				}
				if g == Majority {
					at[Journalled] = at[Majority]
				}
			}
			if step%50 == 0 {
				check(t, s)
			}
		}
		check(t, s)
	}
}

func randomStep(t *testing.T, r *rand.Rand, s *Store) {
	era := s.Era()
	if r.IntN(30) == 0 {
		schemaStep(r, s, era)
		return
	}
	id := r.IntN(25)
	c := Change{Before: s.Get(ns, KeyOf(int32(id)))}
	if c.Before == nil || r.IntN(4) > 0 {
		c.After = doc(t, randomBody(r, id)...)
	}
	if r.IntN(3) == 0 {
		c.Stmt = &Stmt{Session: fmt.Sprint(r.IntN(3)), Txn: int64(r.IntN(5)), ID: int32(r.IntN(3)), Outcome: Outcome{ID: id}}
	}
	if _, err := s.Commit(era, ns, c); err != nil && !errors.As(err, new(*DuplicateKey)) {
		t.Fatal(err)
	}
}

func schemaStep(r *rand.Rand, s *Store, era int64) {
	switch r.IntN(6) {
	case 0:
		s.Drop(era, ns)
	case 1:
		s.CreateIndex(era, ns, spec("u_1", bson.D{e("u", 1)}, func(s *Spec) { s.Unique, s.Sparse = true, true }))
	case 2:
		s.CreateIndex(era, ns, spec("a_1_n_-1", bson.D{e("a", 1), e("n", -1)}, nil))
	case 3:
		s.DropIndex(era, ns, "u_1")
	case 4:
		s.Rename(era, ns, Namespace{"d", "other"}, true)
	case 5:
		s.Rename(era, Namespace{"d", "other"}, ns, true)
	}
}

func dump(s *Store) (text string) {
	for _, db := range s.Databases() {
		for _, c := range s.Collections(db) {
			text += fmt.Sprintln(db, c.Name, c.UUID.Data, c.Bytes)
			for _, x := range c.Indexes {
				text += fmt.Sprintln(" index", x.Name)
			}
			s.dbs[db][c.Name].records.Scan(func(d *Doc) bool { text += fmt.Sprintln(" ", d.rid, d.Body); return true })
		}
	}
	for _, id := range []string{"0", "1", "2"} {
		if x := s.sessions[id]; x != nil && len(x.stmts) > 0 {
			text += fmt.Sprintln("session", id, x.txn, x.stmts)
		}
	}
	return text
}

// Every query answers the same with an index as without one, and sorted when it says so.
func TestIndexedQueriesMatchScans(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	s := New(Options{})
	for _, x := range []*Spec{
		spec("n", bson.D{e("n", 1)}, nil), spec("a_n", bson.D{e("a", 1), e("n", -1)}, nil),
		spec("sparse", bson.D{e("u", -1)}, func(s *Spec) { s.Sparse = true }), spec("u_n", bson.D{e("u", 1), e("n", -1)}, nil),
	} {
		if _, err := s.CreateIndex(1, ns, x); err != nil {
			t.Fatal(err)
		}
	}
	for id := range 400 {
		if _, err := s.Commit(1, ns, Change{After: doc(t, randomBody(r, id)...)}); err != nil {
			t.Fatal(err)
		}
	}
	used := map[string]int{}
	for range 3000 {
		filter, sort := randomQuery(r)
		q := QueryOf(filter, sort)
		sc := s.Open(ns, q)
		used[sc.Index]++
		var got []*Doc
		for d, ok := sc.Next(); ok; d, ok = sc.Next() {
			if matches(d.Body, filter) {
				got = append(got, d)
			}
		}
		if sc.Sorted && len(sort) > 0 && !slices.IsSortedFunc(got, func(a, b *Doc) int { return compareBy(sort, a, b) }) {
			t.Fatalf("filter %v sort %v by %s: not sorted", filter, sort, sc.Index)
		}
		want := 0
		for _, d := range all(s, Query{}) {
			if matches(d.Body, filter) {
				want++
			}
		}
		if len(got) != want {
			t.Fatalf("filter %v sort %v by %s: %d documents, want %d", filter, sort, sc.Index, len(got), want)
		}
	}
	for _, name := range []string{"", "_id_", "n", "a_n", "u_n", "sparse"} {
		if used[name] == 0 {
			t.Errorf("index %q was never chosen: %v", name, used)
		}
	}
}

func randomQuery(r *rand.Rand) (filter bson.D, sort []KeyPart) {
	for _, f := range []string{"_id", "u", "a", "n"} {
		if r.IntN(3) > 0 {
			continue
		}
		v := func() any { return int32(r.IntN(40)) }
		switch r.IntN(4) {
		case 0:
			filter = append(filter, e(f, v()))
		case 1:
			filter = append(filter, e(f, bson.D{e("$gt", v())}))
		case 2:
			filter = append(filter, e(f, bson.D{e("$gte", int32(1)), e("$lt", v())}))
		case 3:
			filter = append(filter, e(f, bson.D{e("$in", bson.A{v(), v(), v()})}))
		}
	}
	for _, f := range []string{"u", "n"} {
		if r.IntN(3) == 0 {
			sort = append(sort, Part(f, 1-2*r.IntN(2)))
		}
	}
	return filter, sort
}

func compareBy(sort []KeyPart, a, b *Doc) int {
	for _, k := range sort {
		if c := bsonval.Compare(bsonval.Field(a.Body, k.Path[0]), bsonval.Field(b.Body, k.Path[0])); c != 0 {
			return c * k.Order
		}
	}
	return 0
}

// matches is a matcher of its own for the few operators of randomQuery.
func matches(d bson.D, filter bson.D) bool {
	for _, f := range filter {
		v, _ := field(d, f.Key)
		values := []any{v}
		if list, ok := v.(bson.A); ok {
			values = list
		}
		ops, ok := f.Value.(bson.D)
		if !ok {
			ops = bson.D{e("$eq", f.Value)}
		}
		for _, op := range ops {
			if !slices.ContainsFunc(values, func(v any) bool { return v != nil && holds(op, v) }) {
				return false
			}
		}
	}
	return true
}

func holds(op bson.E, v any) bool {
	switch c := bsonval.Compare(v, op.Value); op.Key {
	case "$eq":
		return c == 0
	case "$gt":
		return c > 0
	case "$gte":
		return c >= 0
	case "$lt":
		return c < 0
	}
	return slices.ContainsFunc(op.Value.(bson.A), func(w any) bool { return bsonval.Compare(v, w) == 0 })
}

func TestUniqueAmongManyWriters(t *testing.T) {
	s := New(Options{})
	if _, err := s.CreateIndex(1, ns, spec("u_1", bson.D{e("u", 1)}, unique)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	won := make(chan int, 800)
	for w := range 8 {
		wg.Go(func() {
			for u := range 100 {
				if _, err := s.Commit(1, ns, Change{After: doc(t, e("_id", fmt.Sprint(w, "-", u)), e("u", u))}); err == nil {
					won <- u
				}
			}
		})
	}
	wg.Wait()
	if len(won) != 100 {
		t.Errorf("%d inserts won, want each of 100 keys once", len(won))
	}
	check(t, s)
}

func TestScanSeesOneMoment(t *testing.T) {
	s := New(Options{})
	for i := range 100 {
		if _, err := s.Commit(1, ns, Change{After: doc(t, e("_id", i))}); err != nil {
			t.Fatal(err)
		}
	}
	sc := s.Open(ns, Query{})
	first, _ := sc.Next()
	for _, d := range all(s, Query{}) {
		if _, err := s.Commit(1, ns, Change{Before: d}); err != nil {
			t.Fatal(err)
		}
	}
	n := 1
	for _, ok := sc.Next(); ok; _, ok = sc.Next() {
		n++
	}
	if n != 100 || first.ID() != int32(0) || s.Count(ns) != 0 {
		t.Errorf("scan saw %d documents from %v, %d are left", n, first.ID(), s.Count(ns))
	}
}

func TestWaitIsReleasedByTheMarkAndByTheEra(t *testing.T) {
	s := New(Options{})
	s.Hold(true, true)
	seq, err := s.Commit(1, ns, Change{After: doc(t, e("_id", 1))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, 1, seq, Journalled); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("held journal: %v", err)
	}
	done := make(chan error, 2)
	go func() { done <- s.Wait(t.Context(), 1, seq, Majority) }()
	s.Hold(false, false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.Hold(false, true)
	if seq, err = s.Commit(1, ns, Change{After: doc(t, e("_id", 2))}); err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.Wait(t.Context(), 1, seq, Majority) }()
	if lost := s.Revert(Majority); lost != 1 {
		t.Errorf("%d steps lost, want 1", lost)
	}
	if err := <-done; !errors.Is(err, ErrEra) {
		t.Errorf("waiter of a lost write: %v", err)
	}
}

func TestRecordsLiveAsLongAsTheirWrites(t *testing.T) {
	s := New(Options{})
	write := func(id int, txn int64) {
		t.Helper()
		if _, err := s.Commit(s.Era(), ns, Change{After: doc(t, e("_id", id)), Stmt: &Stmt{Session: "s", Txn: txn, Outcome: Outcome{ID: id}}}); err != nil {
			t.Fatal(err)
		}
	}
	write(1, 1)
	s.Flush(Journalled)
	write(2, 2)
	if _, ok := s.Recorded("s", 1, 0); ok {
		t.Error("a newer transaction keeps an older one's record")
	}
	s.Revert(Journalled)
	if o, ok := s.Recorded("s", 1, 0); !ok || o.ID != 1 {
		t.Errorf("the record of the write that survived: %v, %v", o, ok)
	}
	if _, ok := s.Recorded("s", 2, 0); ok {
		t.Error("the record outlived its write")
	}
	if err := s.Begin("s", 0); !errors.Is(err, ErrTxnTooOld) {
		t.Errorf("an older transaction: %v", err)
	}
}
