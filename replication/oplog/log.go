package oplog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble"
	"github.com/cockroachdb/pebble/vfs"
)

// Options of a log. Origin must be set; the rest has defaults.
type Options struct {
	Origin uint8  // this node
	FS     vfs.FS // default: the disk
	Log    *slog.Logger
	Now    func() time.Time // default time.Now; for the age of sessions

	Soft, Hard   int64         // bytes on disk; default 1 GiB and 4 GiB
	Sessions     int           // how many are remembered; default 65,536
	SessionBytes int64         // of their results, on disk; default 64 MiB
	SessionTTL   time.Duration // default 30 min, as drivers expect
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Soft, o.Hard = or(o.Soft, 1<<30), or(o.Hard, 4<<30)
	o.Sessions, o.SessionBytes = or(o.Sessions, 1<<16), or(o.SessionBytes, 64<<20)
	o.SessionTTL = or(o.SessionTTL, 30*time.Minute)
	return o
}

func or[T int | int64 | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Log is an open log. All methods may be called from any goroutine.
type Log struct {
	opts  Options
	dir   string
	fs    vfs.FS
	db    *pebble.DB
	lease lease

	work   sync.WaitGroup // the committer, compactions
	wake   chan struct{}  // one token: the queue is not empty, or closing
	failed chan struct{}  // closed once the disk failed
	once   sync.Once
	used   atomic.Int64 // bytes on disk, as last seen, and what was written since
	tidy   atomic.Bool  // a compaction runs

	reads  sync.RWMutex // held for reading while Pebble is read; guards closed
	closed bool

	qmu     sync.Mutex // guards queue, closing
	queue   []*request
	closing bool

	tmu    sync.Mutex // guards tracks; held by the committer while it builds a step
	tracks map[uint8]*track

	mu          sync.Mutex // guards what readers see, all of it durable
	positions   map[uint8]Position
	meta        Meta
	checkpoints map[string]Vector
	changed     chan struct{} // closed and replaced when positions move

	sessions *sessions
}

// Open opens or makes the log in dir. What is there afterwards is exactly what was durable: Vector is right, and Holes
// tells which of the own entries were on their way.
func Open(dir string, opts Options) (*Log, error) {
	opts = opts.withDefaults()
	if opts.Origin == 0 {
		return nil, errors.New("open the log: expected an origin from 1 to 255")
	}
	l := &Log{opts: opts, dir: dir, fs: opts.FS, wake: make(chan struct{}, 1), failed: make(chan struct{}),
		tracks: map[uint8]*track{}, positions: map[uint8]Position{}, checkpoints: map[string]Vector{}, changed: make(chan struct{}),
		sessions: newSessions(opts)}
	if l.fs == nil {
		l.fs = vfs.Default
	}
	db, err := l.openPebble()
	if err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", dir, err)
	}
	l.db = db
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), db.Close())
	}
	l.sample()
	l.work.Go(l.committer)
	return l, nil
}

// Close finishes what was asked for and closes the log. Callers that come later get ErrClosed.
func (l *Log) Close() error {
	l.qmu.Lock()
	already := l.closing
	l.closing = true
	l.qmu.Unlock()
	if already {
		return ErrClosed
	}
	l.kick()
	l.work.Wait()
	l.reads.Lock()
	l.closed = true
	l.reads.Unlock()
	return l.closeDB()
}

// closeDB closes Pebble. After a failed write its own bookkeeping may not add up, which it answers with a panic: then the
// process is about to end anyway, and the files are for the next one to recover.
func (l *Log) closeDB() (err error) {
	defer func() {
		if p := recover(); p != nil && !l.ok() {
			err = fmt.Errorf("close the log after its failure: %v", p)
		} else if p != nil {
			panic(p)
		}
	}()
	return l.db.Close()
}

// Failed is closed when the disk failed under a write. Nothing is accepted from then on: see ErrFailed.
func (l *Log) Failed() <-chan struct{} { return l.failed }

func (l *Log) ok() bool {
	select {
	case <-l.failed:
		return false
	default:
		return true
	}
}

func (l *Log) fail(why string) {
	l.once.Do(func() {
		l.opts.Log.Error("the log's disk failed", "dir", l.dir, "error", why)
		close(l.failed)
	})
}

// Vector is up to where each origin's entries are there without a hole, durably.
func (l *Log) Vector() Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := make(Vector, len(l.positions))
	for origin, p := range l.positions {
		v[origin] = p.Head
	}
	return v
}

// Positions is Vector with floors and times.
func (l *Log) Positions() map[uint8]Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[uint8]Position, len(l.positions))
	for origin, p := range l.positions {
		all[origin] = p
	}
	return all
}

// Changed is closed when Vector moves next.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Watermark is the HLC up to which everything that these origins' logs say has arrived here: the least of the times of
// their last contiguous entries, 0 while one was never heard of. Who hears an origin's heartbeats may know more.
func (l *Log) Watermark(origins ...uint8) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var least int64
	for i, origin := range origins {
		if hlc := l.positions[origin].HLC; i == 0 || hlc < least {
			least = hlc
		}
	}
	return least
}

// Holes are the origin's sequences that are missing before the last that is known: for the own origin up to the last that
// was leased, since documents may carry it. Fill them from the documents or from peers, and the rest with Void entries.
func (l *Log) Holes(origin uint8) []Span {
	var through uint64
	if origin == l.opts.Origin {
		through = l.lease.last()
	}
	l.tmu.Lock()
	defer l.tmu.Unlock()
	return l.track(origin).holes(through)
}

// track is made at its first use. tmu is held.
func (l *Log) track(origin uint8) *track {
	t := l.tracks[origin]
	if t == nil {
		t = &track{beyond: map[uint64]int64{}}
		l.tracks[origin] = t
	}
	return t
}

// await is one caller's wait for a step of the committer.
func (l *Log) await(ctx context.Context, apply func(*step) error) error {
	r := &request{apply: apply, done: make(chan error, 1)}
	if err := l.enqueue(r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the log: %w", ctx.Err())
	}
}

func (l *Log) enqueue(r *request) error {
	l.qmu.Lock()
	defer l.qmu.Unlock()
	switch {
	case !l.ok():
		return ErrFailed
	case l.closing:
		return ErrClosed
	}
	l.queue = append(l.queue, r)
	l.kick()
	return nil
}

func (l *Log) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
