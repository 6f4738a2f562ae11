package oplog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/vfs"
)

type clock struct{ now time.Time }

func (c *clock) use(o *Options) { o.Now = func() time.Time { return c.now } }

func retryable(seq uint64, lsid string, txn int64, stmt int32) Entry {
	e := entry(own, seq)
	e.Session = &Session{LSID: []byte(lsid), Txn: txn, Stmt: stmt, Result: fmt.Appendf(nil, "%s/%d/%d", lsid, txn, stmt)}
	return e
}

func expectResult(t *testing.T, l *Log, lsid string, txn int64, stmt int32, found bool, want error) {
	t.Helper()
	r, ok, err := l.Lookup([]byte(lsid), txn, stmt)
	if ok != found || !errors.Is(err, want) || ok && string(r.Bytes) != fmt.Sprintf("%s/%d/%d", lsid, txn, stmt) {
		t.Errorf("%s/%d/%d: %q from %d/%d, %v, %v", lsid, txn, stmt, r.Bytes, r.Origin, r.Seq, ok, err)
	}
}

func TestSessionsAreAnsweredOnceMore(t *testing.T) {
	fs, c := vfs.NewMem(), &clock{time.Unix(1e9, 0)}
	l := open(t, fs, c.use)
	appendAll(t, l, retryable(1, "a", 5, 0), retryable(2, "a", 5, 1), retryable(3, "b", 1, 0))
	appendAll(t, l, retryable(4, "b", 2, 7), retryable(5, "a", 4, 9)) // a's is from before its last
	for range 2 {
		expectResult(t, l, "a", 5, 0, true, nil)
		expectResult(t, l, "a", 5, 1, true, nil)
		expectResult(t, l, "a", 5, 2, false, nil)
		expectResult(t, l, "a", 6, 0, false, nil)
		expectResult(t, l, "a", 4, 9, false, ErrTxnTooOld)
		expectResult(t, l, "b", 1, 0, false, ErrTxnTooOld)
		expectResult(t, l, "b", 2, 7, true, nil)
		expectResult(t, l, "c", 1, 0, false, nil)
		if r, _, _ := l.Lookup([]byte("b"), 2, 7); r.Origin != own || r.Seq != 4 {
			t.Errorf("result of %d/%d", r.Origin, r.Seq)
		}
		closed(t, l)
		l = open(t, fs, c.use)
	}
	c.now = c.now.Add(31 * time.Minute)
	expectResult(t, l, "a", 5, 0, false, nil)
}

func TestSessionsAreBounded(t *testing.T) {
	fs, c := vfs.NewMem(), &clock{time.Unix(1e9, 0)}
	bound := func(o *Options) { c.use(o); o.Sessions = 10 }
	l := open(t, fs, bound)
	for i := range uint64(50) {
		c.now = c.now.Add(time.Second)
		appendAll(t, l, retryable(i+1, fmt.Sprintf("s%02d", i), 1, 0))
	}
	closed(t, l)
	l = open(t, fs, bound)
	expectResult(t, l, "s39", 1, 0, false, nil)
	expectResult(t, l, "s40", 1, 0, true, nil)
	rows := 0
	must(t, l.each(spaceSession, func(_, _ []byte) error { rows++; return nil }))
	if rows != 10 || len(l.sessions.byID) != 10 || l.sessions.order.Len() != 10 {
		t.Errorf("%d rows, %d sessions", rows, len(l.sessions.byID))
	}
	closed(t, l)
	l = open(t, fs, c.use, func(o *Options) { o.SessionBytes = 100 })
	appendAll(t, l, retryable(51, "s50", 1, 0))
	if l.sessions.held > 100 {
		t.Errorf("%d bytes held", l.sessions.held)
	}
	expectResult(t, l, "s50", 1, 0, true, nil)
}

func TestBudgetSlowsThenRefusesThenRecovers(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, func(o *Options) { o.Soft, o.Hard = 24<<20, 32<<20 })
	e := entry(own, 1)
	e.Payload = make([]byte, 1<<20)
	for i := range e.Payload {
		e.Payload[i] = byte(i*i>>7) ^ byte(i*7919>>3)
	}
	var slowed, refused bool
	for e.Seq = 1; e.Seq < 100; e.Seq++ {
		var b *BudgetError
		if err := l.Admit(); errors.Is(err, ErrSoft) && errors.As(err, &b) {
			slowed = slowed || b.Delay > 0
		} else if errors.Is(err, ErrFull) {
			refused = true
		}
		if err := l.Append(t.Context(), e); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if refused && l.Used() < l.opts.Hard {
			t.Fatal("refused below the hard limit")
		}
	}
	// A memtable that was just flushed counts twice until its write-ahead log is let go.
	if !slowed || !refused || e.Seq == 100 || l.Used() > 37<<20+memTable {
		t.Fatalf("slowed %v, refused %v, at %d with %d bytes", slowed, refused, e.Seq, l.Used())
	}
	must(t, l.Commit(t.Context(), Change{Meta: Meta{Epoch: 1}})) // small things still go
	must(t, l.Truncate(t.Context(), Vector{own: e.Seq - 2}))
	eventually(t, func() bool { return l.Admit() == nil })
	appendAll(t, l, e)
}
