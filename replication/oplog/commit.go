package oplog

import (
	"context"
	"fmt"
	"maps"

	"github.com/cockroachdb/pebble"
)

// maxStep bounds the bytes of one step, so that who comes while a big one is written does not wait for all before him.
const maxStep = 8 << 20

// Change is what is written in one atomic step.
type Change struct {
	Entries     []Entry
	Meta        Meta              // its fields raise the log's
	Checkpoints map[string]Vector // raise the log's, by name
}

// Append makes the entries durable: see Commit.
func (l *Log) Append(ctx context.Context, entries ...Entry) error {
	return l.Commit(ctx, Change{Entries: entries})
}

// Commit writes a change and returns when it is on disk. Entries that are there already are left as they are. Whoever
// commits at the same time shares the fsync. If ctx ends first, whether the change was written is unknown.
func (l *Log) Commit(ctx context.Context, c Change) error {
	encoded, bytes, err := encodeAll(c.Entries)
	if err != nil {
		return err
	}
	if err := checkNames(c.Checkpoints); err != nil {
		return err
	}
	return l.await(ctx, func(s *step) error {
		if err := s.room(bytes); err != nil {
			return err
		}
		if err := s.expect(encoded); err != nil {
			return err
		}
		for i := range encoded {
			if s.log.track(encoded[i].origin).has(encoded[i].seq) {
				continue
			}
			s.put(&encoded[i])
		}
		s.raiseMeta(c.Meta)
		s.raiseCheckpoints(c.Checkpoints)
		return nil
	})
}

// Repair writes entries over damaged ones, or into holes. Entries below the floor are left out: nobody needs them.
func (l *Log) Repair(ctx context.Context, entries ...Entry) error {
	encoded, _, err := encodeAll(entries)
	if err != nil {
		return err
	}
	return l.await(ctx, func(s *step) error {
		if err := s.expect(encoded); err != nil {
			return err
		}
		for i := range encoded {
			if encoded[i].seq > s.log.track(encoded[i].origin).Floor {
				s.put(&encoded[i])
			}
		}
		return nil
	})
}

// encoded is an entry made ready by the goroutine that waits for it, so that the committer only copies.
type encoded struct {
	origin  uint8
	seq     uint64
	hlc     int64
	value   []byte
	session *Session
}

func encodeAll(entries []Entry) (all []encoded, bytes int, err error) {
	all = make([]encoded, len(entries))
	for i := range entries {
		e := &entries[i]
		value, err := AppendEntry(make([]byte, 0, 64+len(e.NS)+len(e.Payload)), e)
		if err != nil {
			return nil, 0, fmt.Errorf("append entry %d of origin %d: %w", e.Seq, e.Origin, err)
		}
		all[i] = encoded{e.Origin, e.Seq, e.HLC, value, e.Session}
		bytes += len(value)
	}
	return all, bytes, nil
}

// request is one caller's part of a step.
type request struct {
	apply func(*step) error // checks everything before it writes anything into the step
	done  chan error
}

// step is what one fsync makes durable.
type step struct {
	log         *Log
	number      uint64 // of this step, counted from the start of the process
	batch       *pebble.Batch
	touched     map[uint8]bool
	moved       map[uint8]Position
	meta        Meta
	metaMoved   bool
	checkpoints map[string]Vector
}

func (s *step) expect(entries []encoded) error {
	for i := range entries {
		e := &entries[i]
		if head := s.log.track(e.origin).Head; e.seq > head+maxAhead {
			return fmt.Errorf("append entry %d of origin %d after %d: %w", e.seq, e.origin, head, ErrAhead)
		}
	}
	return nil
}

func (s *step) put(e *encoded) {
	s.set(logKey(e.origin, e.seq), e.value)
	s.raiseMeta(Meta{HLC: e.hlc})
	if t := s.log.track(e.origin); !t.has(e.seq) {
		t.add(e.seq, e.hlc)
		s.touched[e.origin] = true
	}
	if e.session != nil {
		s.log.sessions.record(s, e)
	}
}

// set can't fail: a batch that was not committed takes everything.
func (s *step) set(key, value []byte) { _ = s.batch.Set(key, value, nil) }
func (s *step) remove(key []byte)     { _ = s.batch.Delete(key, nil) }

// committer is the only writer: one step at a time, each of all that came while the one before was written.
func (l *Log) committer() {
	for number := uint64(1); ; number++ {
		requests, more := l.take()
		if !more {
			return
		}
		if requests = l.commit(number, requests); len(requests) > 0 {
			l.requeue(requests)
		}
	}
}

func (l *Log) take() (requests []*request, more bool) {
	for {
		l.qmu.Lock()
		requests, l.queue = l.queue, nil
		closing := l.closing
		l.qmu.Unlock()
		if len(requests) > 0 || closing {
			return requests, len(requests) > 0
		}
		<-l.wake
	}
}

func (l *Log) requeue(requests []*request) {
	l.qmu.Lock()
	defer l.qmu.Unlock()
	l.queue = append(requests, l.queue...)
	l.kick()
}

// commit runs one step and returns the requests that did not fit into it.
func (l *Log) commit(number uint64, requests []*request) (left []*request) {
	s := &step{log: l, number: number, batch: l.db.NewBatch(), touched: map[uint8]bool{}, moved: map[uint8]Position{}}
	waiting := make([]*request, 0, len(requests))
	l.tmu.Lock()
	for i, r := range requests {
		if s.batch.Len() > maxStep {
			left = requests[i:]
			break
		}
		if err := r.apply(s); err != nil {
			r.done <- err
			continue
		}
		waiting = append(waiting, r)
	}
	l.sessions.evict(s)
	s.finish()
	l.tmu.Unlock()
	err := l.write(s)
	for _, r := range waiting {
		r.done <- err
	}
	return left
}

// finish adds what follows from the step's parts. tmu is held.
func (s *step) finish() {
	for origin := range s.touched {
		s.moved[origin] = s.log.tracks[origin].Position
		s.set(originKey(origin), s.moved[origin].encode())
	}
	if s.metaMoved {
		s.set([]byte{spaceMeta}, s.meta.encode())
	}
	for name, v := range s.checkpoints {
		if v != nil {
			s.set(checkpointKey(name), AppendVector(nil, v))
		}
	}
}

// write makes the step durable and then visible.
func (l *Log) write(s *step) error {
	if !l.ok() {
		return ErrFailed
	}
	if bytes := s.batch.Len(); !s.batch.Empty() {
		if err := l.db.Apply(s.batch, pebble.Sync); err != nil {
			l.fail(err.Error())
		}
		if !l.ok() {
			return ErrFailed
		}
		l.wrote(bytes)
	}
	_ = s.batch.Close() // holds memory only
	l.publish(s)
	return nil
}

func (l *Log) publish(s *step) {
	l.sessions.publish(s.number)
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(l.positions, s.moved)
	if s.metaMoved {
		l.meta = s.meta
	}
	for name, v := range s.checkpoints {
		l.checkpoints[name] = v
		if v == nil {
			delete(l.checkpoints, name)
		}
	}
	if len(s.moved) > 0 {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}
