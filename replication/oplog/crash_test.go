package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/vfs"
)

// history is what a workload was promised, and what it asked for.
type history struct {
	mu      sync.Mutex
	asked   map[[2]uint64]bool // origin, seq
	acked   map[[2]uint64]bool
	flushes bool // the write-ahead log rotates
	leased  uint64
	txn     int64 // of the one session
	stopped bool  // promises made from now on do not count: the power is gone
}

func newHistory() *history {
	return &history{asked: map[[2]uint64]bool{}, acked: map[[2]uint64]bool{}}
}

func (h *history) note(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		f()
	}
}

// workload exercises every step that touches the disk. It goes on after errors, as a node with a failing disk would.
func (h *history) workload(t *testing.T, l *Log) {
	for round := range uint64(6) {
		var wg sync.WaitGroup
		wg.Go(func() { h.lease(l) })
		for w := range uint64(3) {
			wg.Go(func() {
				seq := round*4 + w + 1
				h.append(t, l, entry(own, seq))
				if w == 2 {
					h.append(t, l, entry(own, seq+1), entry(3, round+1))
				}
			})
		}
		wg.Wait()
		h.retryable(t, l, int64(round+1))
		if h.flushes && round%2 == 1 {
			_ = l.db.Flush()
		}
		if round == 4 {
			_ = l.Truncate(t.Context(), Vector{3: 2})
		}
	}
}

func (h *history) append(t *testing.T, l *Log, all ...Entry) {
	h.note(func() {
		for _, e := range all {
			h.asked[[2]uint64{uint64(e.Origin), e.Seq}] = true
		}
	})
	if l.Append(t.Context(), all...) != nil {
		return
	}
	h.note(func() {
		for _, e := range all {
			h.acked[[2]uint64{uint64(e.Origin), e.Seq}] = true
		}
	})
}

func (h *history) lease(l *Log) {
	if span, err := l.Lease(10); err == nil {
		h.note(func() { h.leased = span.To })
	}
}

func (h *history) retryable(t *testing.T, l *Log, txn int64) {
	e := entry(9, uint64(txn))
	e.Session = &Session{LSID: []byte("s"), Txn: txn, Stmt: 1, Result: fmt.Appendf(nil, "result %d", txn)}
	if l.Append(t.Context(), e) == nil {
		h.note(func() { h.txn = txn })
	}
}

// check compares a log that was opened again with the history.
func (h *history) check(t *testing.T, l *Log) {
	t.Helper()
	for id := range h.acked {
		if !there(l, uint8(id[0]), id[1]) {
			t.Errorf("acknowledged entry %d/%d is lost; vector %v, holes %v", id[0], id[1], l.Vector(), l.Holes(uint8(id[0])))
		}
	}
	for _, origin := range []uint8{own, 3} {
		p := l.Positions()[origin]
		expectRead(t, l, origin, p.Floor+1, p.Head)
		for seq := range l.tracks[origin].seqs() {
			if !h.asked[[2]uint64{uint64(origin), seq}] {
				t.Errorf("entry %d/%d was never appended", origin, seq)
			}
		}
	}
	if damaged, err := l.Verify(t.Context()); err != nil || len(damaged) > 0 {
		t.Errorf("verify: %v, %v", damaged, err)
	}
	if span, err := l.Lease(1); err != nil || span.From <= h.leased {
		t.Errorf("leased %v after %d was leased: %v", span, h.leased, err)
	}
	if h.txn > 0 {
		r, ok, err := l.Lookup([]byte("s"), h.txn, 1)
		if want := fmt.Sprintf("result %d", h.txn); (!ok || string(r.Bytes) != want) && !errors.Is(err, ErrTxnTooOld) {
			t.Errorf("session: %q, %v, %v; want %q or a newer transaction", r.Bytes, ok, err, want)
		}
	}
}

func (t *track) seqs() map[uint64]bool {
	if t == nil {
		return nil
	}
	all := map[uint64]bool{}
	for s := t.Floor + 1; s <= t.Head; s++ {
		all[s] = true
	}
	for s := range t.beyond {
		all[s] = true
	}
	return all
}

func there(l *Log, origin uint8, seq uint64) bool {
	l.tmu.Lock()
	defer l.tmu.Unlock()
	return l.track(origin).has(seq)
}

// A power cut before each single step on the disk: what was not synced is gone, or a part of it is, torn.
func TestPowerCutAtEveryStep(t *testing.T) {
	steps := powerCut(t, -1, 0)
	if steps < 60 {
		t.Fatalf("%d steps: the workload would test nothing", steps)
	}
	cases := 0
	for cut := range steps {
		torn := cut % 3
		powerCut(t, cut, torn)
		cases++
		if t.Failed() {
			t.Fatalf("power cut before step %d of %d, tail %d", cut, steps, torn)
		}
	}
	t.Logf("%d cases", cases)
}

// powerCut runs the workload with a cut before step at, and returns how many steps there were.
func powerCut(t *testing.T, at, torn int) int {
	fs := vfs.NewStrictMem()
	h := newHistory()
	h.flushes = true
	n := 0
	hook := func(string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if n == at {
			fs.SetIgnoreSyncs(true)
			h.stopped = true
		}
		n++
		return nil
	}
	l, err := Open("/log", Options{Origin: own, FS: hookFS{fs, hook}})
	must(t, err)
	h.workload(t, l)
	if at < 0 {
		h.mu.Lock()
		steps := n
		h.mu.Unlock()
		must(t, l.Close())
		return steps
	}
	before := walFiles(t, fs)
	must(t, l.Close())
	fs.ResetToSyncedState()
	fs.SetIgnoreSyncs(false)
	tear(t, fs, before, torn, uint64(at))
	l, err = Open("/log", Options{Origin: own, FS: fs})
	if err != nil {
		t.Errorf("open after the cut: %v", err)
		return n
	}
	h.check(t, l)
	goesOn(t, l, fs)
	return n
}

// goesOn appends after a recovery and looks whether that is there too.
func goesOn(t *testing.T, l *Log, fs vfs.FS) {
	t.Helper()
	head := l.Vector()[own]
	must(t, l.Repair(t.Context(), entries(own, head+1, head+30)...))
	must(t, l.Close())
	l, err := Open("/log", Options{Origin: own, FS: fs})
	must(t, err)
	p := l.Positions()[own]
	if p.Head < head+30 {
		t.Errorf("head %d after %d and 30 more", p.Head, head)
	}
	expectRead(t, l, own, p.Floor+1, p.Head)
	must(t, l.Close())
}

func walFiles(t *testing.T, fs vfs.FS) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	names, err := fs.List("/log")
	if err != nil {
		return all
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			all["/log/"+name] = readFile(t, fs, "/log/"+name)
		}
	}
	return all
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	return b
}

func writeFile(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	_, err = f.Write(b)
	must(t, errors.Join(err, f.Sync(), f.Close()))
}

// tear leaves a part of what was not synced on the disk: kind 1 a prefix, kind 2 a prefix with a flipped bit.
func tear(t *testing.T, fs vfs.FS, before map[string][]byte, kind int, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, uint64(kind)))
	for name, written := range before {
		if _, err := fs.Stat(name); err != nil || kind == 0 {
			continue
		}
		synced := readFile(t, fs, name)
		if len(synced) >= len(written) || !bytes.HasPrefix(written, synced) {
			continue
		}
		rest := bytes.Clone(written[len(synced) : len(synced)+1+random.IntN(len(written)-len(synced))])
		if kind == 2 {
			rest[random.IntN(len(rest))] ^= 1 << random.IntN(8)
		}
		writeFile(t, fs, name, append(synced, rest...))
	}
}

// A disk that fails at each single step, for once or from then on: Append says so, or what it acknowledged is there.
// Where a write-ahead log is exchanged for the next, and where a directory is synced, Pebble answers with a panic: that
// is the power cut above, and nothing this process could test.
func TestDiskErrorAtEveryStep(t *testing.T) {
	steps := diskError(t, -1, false)
	for at := range steps {
		for _, lasting := range []bool{false, true} {
			diskError(t, at, lasting)
			if t.Failed() {
				t.Fatalf("error at step %d of %d, lasting %v", at, steps, lasting)
			}
		}
	}
	t.Logf("%d cases", 2*steps)
}

func diskError(t *testing.T, at int, lasting bool) int {
	fs := vfs.NewMem()
	h := newHistory()
	n, armed := 0, false
	hook := func(op string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if op != "write" && op != "sync" {
			return nil
		}
		if !armed {
			return nil
		}
		n++
		if at >= 0 && (n-1 == at || lasting && n > at) {
			return errInjected
		}
		return nil
	}
	l, err := Open("/log", Options{Origin: own, FS: hookFS{fs, hook}})
	must(t, err)
	arm := func(on bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		armed = on
	}
	arm(true)
	h.workload(t, l)
	arm(false)
	steps := n
	if err := l.Close(); err != nil && at < 0 {
		t.Fatal(err)
	}
	l, err = Open("/log", Options{Origin: own, FS: fs})
	if err != nil {
		t.Errorf("open after the error: %v", err)
		return steps
	}
	h.check(t, l)
	must(t, l.Close())
	return steps
}

func TestAFailedDiskFailsTheLogForGood(t *testing.T) {
	var mu sync.Mutex
	broken := false
	fs := hookFS{vfs.NewMem(), func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errInjected
		}
		return nil
	}}
	l, err := Open("/log", Options{Origin: own, FS: fs})
	must(t, err)
	appendAll(t, l, entry(own, 1))
	mu.Lock()
	broken = true
	mu.Unlock()
	if err := l.Append(t.Context(), entry(own, 2)); !errors.Is(err, ErrFailed) {
		t.Errorf("append on a broken disk: %v", err)
	}
	<-l.Failed()
	mu.Lock()
	broken = false
	mu.Unlock()
	for name, err := range map[string]error{
		"append": l.Append(t.Context(), entry(own, 3)), "admit": l.Admit(), "truncate": l.Truncate(t.Context(), Vector{own: 1})} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s after the failure: %v", name, err)
		}
	}
	if _, err := l.Read(own, 1, 1); !errors.Is(err, ErrFailed) {
		t.Errorf("read after the failure: %v", err)
	}
	if got := l.Vector(); !reflect.DeepEqual(got, Vector{own: 1}) {
		t.Errorf("vector %v", got)
	}
	_ = l.Close()
}
