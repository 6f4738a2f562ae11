package mongosim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/wire"
)

// The linearizability test: workers run $inc, compare-and-set, reads, inserts and deletes over few documents, and
// porcupine looks for an order of whole operations that explains every answer.

const absent = math.MinInt64

type input struct {
	kind string // inc, cas, read, insert, delete
	doc  int
	a, b int64
}

// output is n for writes and value for what answers a document; unknown means that no answer came.
type output struct {
	value   int64
	n       int64
	unknown bool
}

func documentModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := map[int][]porcupine.Operation{}
			for _, o := range history {
				d := o.Input.(input).doc
				parts[d] = append(parts[d], o)
			}
			var all [][]porcupine.Operation
			for _, p := range parts {
				all = append(all, p)
			}
			return all
		},
		Init: func() any { return int64(absent) },
		Step: func(state, in, out any) (bool, any) {
			next, want := expected(state.(int64), in.(input))
			got := out.(output)
			return got.unknown || got == want, next
		},
	}
}

// expected is the sequential specification of one document.
func expected(v int64, in input) (next int64, out output) {
	exists := v != absent
	switch in.kind {
	case "inc": // findAndModify with upsert, answers the document after
		if !exists {
			v = 0
		}
		return v + in.a, output{value: v + in.a, n: 1}
	case "cas":
		if exists && v == in.a {
			return in.b, output{n: 1}
		}
		return v, output{}
	case "insert":
		if exists {
			return v, output{}
		}
		return in.a, output{n: 1}
	case "delete":
		if exists {
			return absent, output{n: 1}
		}
		return v, output{}
	}
	return v, output{value: v}
}

func (in input) command() bson.D {
	id := bson.D{e("_id", in.doc)}
	switch in.kind {
	case "inc":
		return bson.D{e("findAndModify", "c"), e("query", id), e("update", bson.D{e("$inc", bson.D{e("v", in.a)})}), e("upsert", true), e("new", true)}
	case "cas":
		return bson.D{e("update", "c"), e("updates", bson.A{bson.D{e("q", bson.D{e("_id", in.doc), e("v", in.a)}),
			e("u", bson.D{e("$set", bson.D{e("v", in.b)})})}})}
	case "insert":
		return bson.D{e("insert", "c"), e("documents", bson.A{bson.D{e("_id", in.doc), e("v", in.a)}})}
	case "delete":
		return bson.D{e("delete", "c"), e("deletes", bson.A{bson.D{e("q", id), e("limit", 1)}})}
	}
	return bson.D{e("find", "c"), e("filter", id)}
}

func (in input) output(reply bson.D) (out output) {
	switch in.kind {
	case "inc":
		return output{value: number(reply, "value", "v"), n: 1}
	case "read":
		batch := bsonval.Get(reply, []string{"cursor", "firstBatch"}).(bson.A)
		if len(batch) == 0 {
			return output{value: absent}
		}
		return output{value: number(batch[0].(bson.D), "v")}
	}
	return output{n: number(reply, "n")}
}

func number(d bson.D, path ...string) int64 {
	n, _ := bsonval.ToInt64(bsonval.Get(d, path))
	return n
}

// effective are operations that always have an effect. One that had none is not recorded, here as on a real server, so a
// late copy of it may still act after its sender was told that nothing matched: no history with those is linearizable.
func effective() []string { return []string{"inc", "read"} }

func allKinds() []string {
	return []string{"inc", "inc", "cas", "cas", "read", "read", "insert", "delete"}
}

func randomInput(r *rand.Rand, kinds []string) input {
	in := input{kind: kinds[r.IntN(len(kinds))], doc: r.IntN(3)}
	in.a, in.b = int64(r.IntN(4)), int64(r.IntN(4))
	return in
}

// worker runs operations one after the other and retries each with its own lsid and txnNumber, as a driver does.
type worker struct {
	id     int
	run    func(context.Context, string, bson.D) (bson.D, error)
	clock  *atomic.Int64
	rand   *rand.Rand
	kinds  []string
	txn    int64
	tries  int // 1: an operation without an answer stays unknown
	events []porcupine.Operation
}

func (w *worker) step(ctx context.Context) error {
	in := randomInput(w.rand, w.kinds)
	cmd := in.command()
	if in.kind != "read" {
		w.txn++
		cmd = append(cmd, e("lsid", bson.D{e("id", fmt.Sprint("worker ", w.id))}), e("txnNumber", w.txn))
	}
	o := porcupine.Operation{ClientId: w.id, Input: in, Call: w.clock.Add(1)}
	out := output{unknown: true}
	for range w.tries {
		reply, err := w.run(ctx, "d", cmd)
		if err == nil {
			out = in.output(reply)
			break
		}
		if ce := new(wire.CommandError); !errors.Is(err, fault.ErrCut) && !(errors.As(err, &ce) && retryable(ce.Code)) {
			return fmt.Errorf("%v: %w", cmd, err)
		}
	}
	o.Output, o.Return = out, w.clock.Add(1)
	if out.unknown {
		o.Return = math.MaxInt64
	}
	w.events = append(w.events, o)
	return nil
}

// history runs the workers to their end and returns all operations.
func history(t *testing.T, b *Backend, kinds []string, workers, steps, tries int, seed uint64) (all []porcupine.Operation) {
	t.Helper()
	var clock atomic.Int64
	var wg sync.WaitGroup
	list := make([]*worker, workers)
	for i := range list {
		w := &worker{id: i, run: b.Run, clock: &clock, kinds: kinds, tries: tries, rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		list[i] = w
		wg.Go(func() {
			for range steps {
				if err := w.step(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, w := range list {
		all = append(all, w.events...)
	}
	return all
}

func linearizable(t *testing.T, ops []porcupine.Operation) {
	t.Helper()
	if got := porcupine.CheckOperationsTimeout(documentModel(), ops, 3*time.Minute); got != porcupine.Ok {
		t.Errorf("%d operations: %s", len(ops), got)
	}
}

func TestLinearizable(t *testing.T) {
	for seed := range uint64(5) {
		linearizable(t, history(t, New(Options{ReplicaSet: "sim"}), allKinds(), 8, 200, 1, seed))
	}
}

// seeded lets one command in ten meet one of the actions, and one reply in ten be cut off, by its number and a seed.
func seeded(seed uint64, actions []fault.Action) func(fault.Event) fault.Action {
	return func(ev fault.Event) fault.Action {
		r := rand.New(rand.NewPCG(seed, uint64(ev.N)<<2|uint64(ev.Point)))
		switch {
		case r.IntN(10) > 0:
		case ev.Point == fault.Received && ev.Command != "find":
			return actions[r.IntN(len(actions))]
		case ev.Point != fault.Received:
			return fault.Cut()
		}
		return fault.Action{}
	}
}

// land lands parked commands in a random order while the workers run, and all that is left at the end.
func land(ctx context.Context, b *Backend, r *rand.Rand, stop <-chan struct{}) (landed int) {
	for {
		select {
		case <-stop:
			for _, w := range b.Faults().Waiting() {
				w.Land(ctx)
				landed++
			}
			return landed
		default:
		}
		wait, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		all, err := b.Faults().Await(wait, 3)
		cancel()
		if err == nil {
			all[r.IntN(len(all))].Land(ctx)
			landed++
		}
	}
}

// With cuts before and after the effect, late and doubled landings, an operation that is retried until it is answered
// happens exactly once and at one moment.
func TestRetriedOperationsAreLinearizable(t *testing.T) {
	again := []fault.Action{fault.Cut(), fault.Park(fault.ErrCut), fault.Duplicate(), fault.Fail(failure(codeNotPrimary, "not primary"))}
	faultyHistories(t, effective(), again, 120, 1000)
}

// Without retries what got no answer may have happened at any time since, or never.
func TestUnansweredOperationsAreLinearizable(t *testing.T) {
	// Few steps: each unknown operation doubles what porcupine has to look at.
	faultyHistories(t, allKinds(), []fault.Action{fault.Cut(), fault.Park(fault.ErrCut)}, 25, 1)
}

func faultyHistories(t *testing.T, kinds []string, actions []fault.Action, steps, tries int) {
	landed := 0
	for seed := range uint64(6) {
		b := New(Options{ReplicaSet: "sim"})
		b.Faults().Decide(seeded(seed, actions))
		stop, done := make(chan struct{}), make(chan int)
		go func() { done <- land(t.Context(), b, rand.New(rand.NewPCG(seed, 99)), stop) }()
		ops := history(t, b, kinds, 6, steps, tries, seed)
		close(stop)
		landed += <-done
		linearizable(t, ops)
	}
	// Over all seeds: which command meets which number is the scheduler's, and a short history may meet no landing.
	if landed == 0 {
		t.Error("nothing landed late")
	}
}

// A checker that finds nothing wrong in a wrong history would prove nothing.
func TestCheckerSeesALostIncrement(t *testing.T) {
	inc := input{kind: "inc", a: 1}
	ops := []porcupine.Operation{
		{ClientId: 0, Input: inc, Output: output{value: 1, n: 1}, Call: 1, Return: 2},
		{ClientId: 1, Input: inc, Output: output{value: 1, n: 1}, Call: 3, Return: 4},
	}
	if porcupine.CheckOperationsTimeout(documentModel(), ops, time.Second) != porcupine.Illegal {
		t.Error("two increments that both answer 1 passed")
	}
}

// Two writers that each move a document into a unique key: one wins, whatever the interleaving.
func TestUniqueIndexRaces(t *testing.T) {
	b := New(Options{})
	ctx := t.Context()
	must(t, b, bson.D{e("createIndexes", "c"), e("indexes", bson.A{bson.D{e("key", bson.D{e("k", 1), e("tag", 1)}), e("name", "k_tag"), e("unique", true)}})})
	for i := range 8 {
		must(t, b, bson.D{e("insert", "c"), e("documents", bson.A{bson.D{e("_id", i), e("k", -i-1), e("tag", bson.A{"x", "y"})}})})
	}
	var wg sync.WaitGroup
	var won atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for key := range 50 {
				reply, err := b.Run(ctx, "d", bson.D{e("update", "c"), e("updates", bson.A{bson.D{e("q", bson.D{e("_id", i), e("k", bson.D{e("$lt", key)})}),
					e("u", bson.D{e("$set", bson.D{e("k", key), e("round", key)})})}})})
				if err != nil {
					t.Error(err)
				}
				won.Add(number(reply, "nModified"))
			}
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for _, raw := range b.Faults().Dump("d", "c") {
		k := raw.Lookup("k").AsInt64()
		if seen[k] {
			t.Errorf("two documents hold %d", k)
		}
		seen[k] = true
	}
	if won.Load() < 50 {
		t.Errorf("%d moves for 50 keys", won.Load())
	}
}

// Upserts of one document by many: one inserts, the others update, nobody sees a duplicate key.
func TestUpsertRace(t *testing.T) {
	b := New(Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := range 50 {
				must(t, b, bson.D{e("update", "c"), e("updates", bson.A{bson.D{e("q", bson.D{e("_id", id)}), e("u", bson.D{e("$inc", bson.D{e("v", 1)})}), e("upsert", true)}})})
			}
		})
	}
	wg.Wait()
	for _, raw := range b.Faults().Dump("d", "c") {
		if v := raw.Lookup("v").AsInt64(); v != 8 {
			t.Errorf("document %v counts %d of 8", raw.Lookup("_id"), v)
		}
	}
}

func must(t testing.TB, b *Backend, cmd bson.D) bson.D {
	t.Helper()
	reply, err := b.Run(t.Context(), "d", cmd)
	if err != nil {
		t.Errorf("%v: %v", cmd, err)
	}
	if list := bsonval.Field(reply, "writeErrors"); err == nil && list != any(bsonval.Missing{}) {
		t.Errorf("%v: %v", cmd, list)
	}
	return reply
}
