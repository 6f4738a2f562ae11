package crdt

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// The model knows every operation and who had seen what when; it computes the value from that, not from states.
type modelOp struct {
	kind  OpKind
	stamp Stamp
	value int64
	saw   map[int]bool
}

type model struct {
	ops  []modelOp
	seen []map[int]bool // per replica
}

// counter is the newest set's value plus all increments that it did not see.
func (m *model) counter() int64 {
	set := m.newestSet()
	sum := m.ops[set].value
	for i, op := range m.ops {
		if op.kind == Inc && !m.ops[set].saw[i] {
			sum += op.value
		}
	}
	return sum
}

// extreme is the newest set's value and all newer ones, whichever is greatest (or least).
func (m *model) extreme(kind OpKind) int64 {
	set := m.newestSet()
	v := m.ops[set].value
	for _, op := range m.ops {
		if op.kind == kind && op.stamp > m.ops[set].stamp && (kind == Max) == (op.value > v) {
			v = op.value
		}
	}
	return v
}

func (m *model) newestSet() int {
	set := -1
	for i, op := range m.ops {
		if op.kind == Set && (set < 0 || op.stamp > m.ops[set].stamp) {
			set = i
		}
	}
	return set
}

// history writes one field at n replicas that exchange whole states now and then. spoil may damage a delta, as an
// implementation with a rule missing would make it.
func history(rng *rand.Rand, n int, kind OpKind, spoil func(Doc, Doc, Op) Doc) (got any, want int64) {
	m := &model{}
	docs, clocks, seqs := make([]Doc, n), make([]Stamp, n), make([]uint64, n)
	first, _ := Doc{}.Insert(Write{Origin: 1, Seq: 1, Stamp: 1 << 8}, bson.D{{Key: "_id", Value: int32(1)}, {Key: "f", Value: int64(2)}})
	m.ops = append(m.ops, modelOp{kind: Set, stamp: 1 << 8, value: 2})
	for i := range n {
		docs[i] = first
		m.seen = append(m.seen, map[int]bool{0: true})
	}
	for range 5 + rng.IntN(25) {
		i := rng.IntN(n)
		if j := rng.IntN(n); rng.IntN(2) == 0 {
			docs[i] = docs[i].Merge(docs[j])
			for k := range m.seen[j] {
				m.seen[i][k] = true
			}
			continue
		}
		op := Op{Kind: kind, Path: []string{"f"}, Value: int64(1 + rng.IntN(9))}
		if rng.IntN(4) == 0 {
			op.Kind = Set
		}
		clocks[i] = Next(max(clocks[i], docs[i].Newest()), int64(rng.IntN(50)), Origin(i+1))
		seqs[i]++
		delta, err := docs[i].Apply(Write{Origin(i + 1), seqs[i] + 1, clocks[i]}, []Op{op})
		if err != nil {
			panic(err)
		}
		if spoil != nil {
			delta = spoil(docs[i], delta, op)
		}
		before := docs[i].Visible()
		docs[i] = docs[i].Merge(delta)
		if bsonval.Identical(before, docs[i].Visible()) && op.Kind != Set && op.Kind != Inc {
			continue
		}
		saw := map[int]bool{}
		for k := range m.seen[i] {
			saw[k] = true
		}
		m.ops = append(m.ops, modelOp{op.Kind, clocks[i], op.Value.(int64), saw})
		m.seen[i][len(m.ops)-1] = true
	}
	all := docs[0]
	for _, d := range docs {
		all = all.Merge(d)
	}
	want = m.counter()
	if kind != Inc {
		want = m.extreme(kind)
	}
	return bsonval.Field(all.Visible(), "f"), want
}

func wrong(kind OpKind, seeds int, spoil func(Doc, Doc, Op) Doc) (seed int, what string) {
	for seed := range seeds {
		got, want := history(rand.New(rand.NewPCG(uint64(seed), 7)), 2+seed%4, kind, spoil)
		if got != any(want) {
			return seed, fmt.Sprintf("seed %d: %v, the model has %d", seed, got, want)
		}
	}
	return -1, ""
}

func TestCountersAndExtremesAreTheModels(t *testing.T) {
	for _, kind := range []OpKind{Inc, Max, Min} {
		if _, what := wrong(kind, seeds(t, 5000), nil); what != "" {
			t.Errorf("operation %d, %s", kind, what)
		}
	}
}

// The obvious shortcuts, each as it would change what a write sends. A test that lets one pass is worth nothing.
func TestShortcutsAreCaught(t *testing.T) {
	edit := func(delta Doc, f func(*node)) Doc {
		root := *delta.root
		root.kids = nil
		for _, k := range delta.root.kids {
			n := *k.n
			f(&n)
			root.kids = append(root.kids, kid{k.key, n.seal()})
		}
		delta.root = root.seal()
		return delta
	}
	for name, c := range map[string]struct {
		kind  OpKind
		spoil func(before, delta Doc, op Op) Doc
	}{
		"a set forgets what it saw": {Inc, func(_, delta Doc, _ Op) Doc {
			return edit(delta, func(n *node) { n.seen = nil })
		}},
		"an increment is sent as the value it made": {Inc, func(before, delta Doc, op Op) Doc {
			v := bsonval.Field(before.Merge(delta).Visible(), "f")
			return edit(delta, func(n *node) {
				if op.Kind == Inc {
					*n = node{stamp: delta.Newest(), kind: scalar, val: v}
				}
			})
		}},
		"an increment is sent without the total before it": {Inc, func(_, delta Doc, op Op) Doc {
			return edit(delta, func(n *node) {
				if op.Kind == Inc {
					n.inc = []tally{{n.inc[0].origin, n.inc[0].at, number{i: op.Value.(int64), kind: int64s}}}
				}
			})
		}},
		"a maximum is a set": {Max, func(_, delta Doc, op Op) Doc {
			return edit(delta, func(n *node) {
				if len(n.max) > 0 {
					*n = node{stamp: n.max[0].at, kind: scalar, val: op.Value}
				}
			})
		}},
		"a maximum outlives a set": {Max, func(_, delta Doc, op Op) Doc {
			return edit(delta, func(n *node) {
				if len(n.max) > 0 {
					n.max = []extreme{{n.max[0].origin, n.max[0].at + 1<<60, n.max[0].val}}
				}
			})
		}},
	} {
		seed, _ := wrong(c.kind, 2000, c.spoil)
		if seed < 0 {
			t.Errorf("%s: not caught", name)
		}
		t.Logf("%s: caught by seed %d", name, seed)
	}
}
