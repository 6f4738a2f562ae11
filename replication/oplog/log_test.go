package oplog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const own = 7

func open(t testing.TB, fs vfs.FS, change ...func(*Options)) *Log {
	t.Helper()
	o := Options{Origin: own, FS: fs}
	for _, f := range change {
		f(&o)
	}
	l, err := Open("/log", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

func closed(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// entry is what origin issued at seq: every test can tell from the entry alone what it must hold.
func entry(origin uint8, seq uint64) Entry {
	return Entry{Origin: origin, Seq: seq, HLC: int64(seq)*1000 + int64(origin), NS: "shop.orders",
		Payload: fmt.Appendf(nil, "payload %d/%d", origin, seq)}
}

func entries(origin uint8, from, to uint64) (all []Entry) {
	for s := from; s <= to; s++ {
		all = append(all, entry(origin, s))
	}
	return all
}

func appendAll(t testing.TB, l *Log, all ...Entry) {
	t.Helper()
	if err := l.Append(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
}

func expectRead(t testing.TB, l *Log, origin uint8, from, to uint64) {
	t.Helper()
	for next := from; next <= to; {
		got, err := l.Read(origin, next, 4096)
		if err != nil || len(got) == 0 {
			t.Fatalf("read %d/%d: %d entries, %v", origin, next, len(got), err)
		}
		for _, e := range got {
			if want := entry(origin, next); !reflect.DeepEqual(e, want) {
				t.Fatalf("read %+v, want %+v", e, want)
			}
			next++
		}
	}
	if got, err := l.Read(origin, to+1, 4096); err != nil || len(got) != 0 {
		t.Fatalf("beyond %d: %d entries, %v", to, len(got), err)
	}
}

func TestEntriesAreThereAgainAfterReopen(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	appendAll(t, l, entries(own, 1, 500)...)
	appendAll(t, l, append(entries(3, 1, 20), entries(255, 1, 1)...)...)
	appendAll(t, l, entries(own, 400, 510)...) // partly known
	want := Vector{own: 510, 3: 20, 255: 1}
	for range 2 {
		if got := l.Vector(); !reflect.DeepEqual(got, want) {
			t.Fatalf("vector %v, want %v", got, want)
		}
		expectRead(t, l, own, 1, 510)
		expectRead(t, l, 3, 5, 20)
		expectRead(t, l, 255, 1, 1)
		if got := l.Watermark(own, 3); got != 20_003 {
			t.Errorf("watermark %d", got)
		}
		if got := l.Watermark(own, 9); got != 0 {
			t.Errorf("watermark with an origin never heard of: %d", got)
		}
		if got := l.Meta().HLC; got != 510_007 {
			t.Errorf("HLC %d", got)
		}
		closed(t, l)
		l = open(t, fs)
	}
}

func TestHolesAreReportedAndServedOnlyOnceFilled(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	if span, err := l.Lease(10); err != nil || span != (Span{1, 10}) {
		t.Fatal(span, err)
	}
	appendAll(t, l, entry(own, 1), entry(own, 4), entry(own, 6))
	check := func(holes []Span, head uint64) {
		t.Helper()
		if got := l.Holes(own); !reflect.DeepEqual(got, holes) {
			t.Errorf("holes %v, want %v", got, holes)
		}
		expectRead(t, l, own, 1, head)
	}
	check([]Span{{2, 3}, {5, 5}, {7, 10}}, 1)
	closed(t, l)
	l = open(t, fs)
	check([]Span{{2, 3}, {5, 5}, {7, 10}}, 1)
	appendAll(t, l, entry(own, 3), entry(own, 2))
	check([]Span{{5, 5}, {7, 10}}, 4)
	appendAll(t, l, Entry{Origin: own, Seq: 5, Void: true})
	if got, _ := l.Read(own, 5, 1); len(got) != 1 || !got[0].Void {
		t.Errorf("void read as %+v", got)
	}
	if err := l.Append(t.Context(), entry(own, 6+maxAhead+1)); !errors.Is(err, ErrAhead) {
		t.Errorf("far ahead: %v", err)
	}
	if span, _ := l.Lease(2); span != (Span{11, 12}) {
		t.Errorf("leased %v", span)
	}
	if got := l.Holes(9); got != nil {
		t.Errorf("an origin never heard of has holes %v", got)
	}
}

func TestALeaseIsNeverGivenTwice(t *testing.T) {
	fs := vfs.NewMem()
	var last uint64
	for i := range 5 {
		l := open(t, fs)
		span, err := l.Lease(100)
		if err != nil || span.From != last+1 || span.To != last+100 {
			t.Fatalf("round %d: %v, %v", i, span, err)
		}
		last = span.From + 9
		if err := l.Release(last); err != nil {
			t.Fatal(err)
		}
		closed(t, l)
	}
	l := open(t, fs)
	appendAll(t, l, entry(own, last+1000)) // a peer gave back what this node forgot
	if span, _ := l.Lease(1); span.From != last+1001 {
		t.Errorf("leased %v", span)
	}
	closed(t, l)
	if err := fs.Remove("/log/" + leaseFile); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("/log", Options{Origin: own, FS: fs}); !errors.Is(err, ErrLease) {
		t.Errorf("without its lease file: %v", err)
	}
}

func TestLogOfAnotherNodeIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	closed(t, open(t, fs))
	if _, err := Open("/log", Options{Origin: 8, FS: fs}); !errors.Is(err, ErrOrigin) {
		t.Error(err)
	}
	if _, err := Open("/log", Options{FS: fs}); err == nil {
		t.Error("opened without an origin")
	}
}

func TestWaitersShareOneSync(t *testing.T) {
	var mu sync.Mutex
	syncs, hold := 0, false
	held, gate := make(chan struct{}, 10), make(chan struct{})
	fs := hookFS{vfs.NewMem(), func(op string) error {
		if op != "sync" {
			return nil
		}
		mu.Lock()
		wait := hold
		syncs++
		mu.Unlock()
		if wait {
			held <- struct{}{}
			<-gate
		}
		return nil
	}}
	set := func(on bool) {
		mu.Lock()
		defer mu.Unlock()
		hold, syncs = on, 0
	}
	l := open(t, fs)
	set(true)
	const writers = 100
	var wg sync.WaitGroup
	wg.Go(func() { appendAll(t, l, entry(own, 1)) })
	<-held
	for i := range writers {
		wg.Go(func() { appendAll(t, l, entry(own, uint64(i+2))) })
	}
	eventually(t, func() bool {
		l.qmu.Lock()
		defer l.qmu.Unlock()
		return len(l.queue) == writers
	})
	set(false)
	close(gate)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if syncs == 0 || syncs > 2 {
		t.Errorf("%d syncs for %d writers", syncs, writers)
	}
	expectRead(t, l, own, 1, writers+1)
}

func eventually(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about within 30 s")
		}
		time.Sleep(time.Millisecond) // a poll of a condition with a deadline
	}
}

func TestAWaiterMayLeave(t *testing.T) {
	l := open(t, vfs.NewMem())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, entry(own, 1)); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	appendAll(t, l, entry(own, 2))
	expectRead(t, l, own, 1, 2)
}

func TestClosedLogSaysSo(t *testing.T) {
	l := open(t, vfs.NewMem())
	closed(t, l)
	if err := l.Append(t.Context(), entry(own, 1)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Read(own, 1, 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, _, err := l.Lookup([]byte("a"), 1, 1); err != nil {
		t.Error(err)
	}
}

func TestTruncateRebaseAndCheckpoints(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	appendAll(t, l, append(entries(own, 1, 100), entries(2, 1, 50)...)...)
	appendAll(t, l, entry(2, 60), entry(2, 71))
	must(t, l.Truncate(t.Context(), Vector{own: 40, 2: 1000, 9: 5}))
	must(t, l.Commit(t.Context(), Change{Checkpoints: map[string]Vector{"a": {own: 5}, "b": {2: 9}}, Meta: Meta{HLC: 1 << 40, Epoch: 3}}))
	must(t, l.Commit(t.Context(), Change{Checkpoints: map[string]Vector{"a": {own: 3, 2: 7}}, Meta: Meta{Local: 12, Epoch: 2}}))
	must(t, l.Forget(t.Context(), "b"))
	for range 2 {
		expectRead(t, l, own, 41, 100)
		var gone *TruncatedError
		if _, err := l.Read(own, 40, 1); !errors.As(err, &gone) || gone.Floor != 40 {
			t.Errorf("below the floor: %v", err)
		}
		if p := l.Positions()[2]; p.Floor != 50 || p.Head != 50 {
			t.Errorf("truncated beyond what was there: %+v", p)
		}
		if got := l.Checkpoints(); !reflect.DeepEqual(got, map[string]Vector{"a": {own: 5, 2: 7}}) {
			t.Errorf("checkpoints %v", got)
		}
		if got := l.Meta(); got != (Meta{1 << 40, 12, 3}) {
			t.Errorf("meta %+v", got)
		}
		closed(t, l)
		l = open(t, fs)
	}
	must(t, l.Rebase(t.Context(), Vector{own: 90, 2: 70, 5: 9}))
	if got, want := l.Vector(), (Vector{own: 100, 2: 71, 5: 9}); !reflect.DeepEqual(got, want) {
		t.Errorf("vector %v, want %v", got, want)
	}
	appendAll(t, l, entry(5, 10))
	expectRead(t, l, 5, 10, 10)
	expectRead(t, l, 2, 71, 71)
	if all, err := l.Verify(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("verify: %v, %v", all, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestChangedTellsOfNewEntries(t *testing.T) {
	l := open(t, vfs.NewMem())
	c := l.Changed()
	must(t, l.Commit(t.Context(), Change{Meta: Meta{Epoch: 1}}))
	select {
	case <-c:
		t.Error("told of a change without an entry")
	default:
	}
	appendAll(t, l, entry(own, 1))
	<-c
}
