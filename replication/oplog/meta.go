package oplog

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Meta is the little a node has to know again when it starts. Every field only grows.
type Meta struct {
	HLC   int64  // of every entry, or above: reserve some seconds ahead, so that a clock that steps back can't issue old stamps
	Local uint64 // all changes of documents up to this _r.l are in the log
	Epoch uint64 // of the cluster's membership
}

const maxName = 255

func (m Meta) raised(o Meta) Meta {
	return Meta{max(m.HLC, o.HLC), max(m.Local, o.Local), max(m.Epoch, o.Epoch)}
}

func (m Meta) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(m.HLC))
	b = binary.BigEndian.AppendUint64(b, m.Local)
	return binary.BigEndian.AppendUint64(b, m.Epoch)
}

func parseMeta(b []byte) (Meta, error) {
	if len(b) < 24 { // a newer version may add fields at the end
		return Meta{}, fmt.Errorf("%w: meta of %d bytes", ErrFormat, len(b))
	}
	return Meta{int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, nil
}

// Meta is what was committed.
func (l *Log) Meta() Meta {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meta
}

// Checkpoint is the vector that was committed under a name: what a peer has acknowledged, what was applied. Empty when
// there is none.
func (l *Log) Checkpoint(name string) Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checkpoints[name].Clone()
}

// Checkpoints are all of them.
func (l *Log) Checkpoints() map[string]Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]Vector, len(l.checkpoints))
	for name, v := range l.checkpoints {
		all[name] = v.Clone()
	}
	return all
}

// Forget removes a checkpoint: its peer left the fleet and holds nothing back any more.
func (l *Log) Forget(ctx context.Context, name string) error {
	return l.await(ctx, func(s *step) error {
		s.checkpoint(name, nil)
		s.remove(checkpointKey(name))
		return nil
	})
}

// Truncate drops every origin's entries up to below, as far as they are there: everybody has them.
func (l *Log) Truncate(ctx context.Context, below Vector) error {
	err := l.await(ctx, func(s *step) error {
		for origin, seq := range below {
			t := l.track(origin)
			if seq = min(seq, t.Head); seq > t.Floor {
				_ = s.batch.DeleteRange(logKey(origin, t.Floor+1), logKey(origin, seq+1), nil)
				t.Floor = seq
				s.touched[origin] = true
			}
		}
		return nil
	})
	if err == nil {
		l.reclaim(below)
	}
	return err
}

// Rebase says that everything up to v has arrived by another way, in the documents of an initial sync: heads and floors
// move there, and older entries are dropped.
func (l *Log) Rebase(ctx context.Context, v Vector) error {
	return l.await(ctx, func(s *step) error {
		for origin, seq := range v {
			t := l.track(origin)
			if seq <= t.Head {
				continue
			}
			_ = s.batch.DeleteRange(logKey(origin, t.Floor+1), logKey(origin, seq+1), nil)
			t.rebase(seq)
			s.touched[origin] = true
		}
		return nil
	})
}

func (s *step) raiseMeta(m Meta) {
	if !s.metaMoved {
		s.meta = s.log.storedMeta()
	}
	if raised := s.meta.raised(m); raised != s.meta {
		s.meta, s.metaMoved = raised, true
	}
}

func (l *Log) storedMeta() Meta {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meta
}

func (s *step) raiseCheckpoints(raise map[string]Vector) {
	for name, v := range raise {
		now, mine := s.checkpoints[name]
		if !mine {
			now = s.log.Checkpoint(name)
		}
		if now == nil {
			now = Vector{}
		}
		if !now.Covers(v) {
			now.Merge(v)
			s.checkpoint(name, now)
		}
	}
}

func (s *step) checkpoint(name string, v Vector) {
	if s.checkpoints == nil {
		s.checkpoints = map[string]Vector{}
	}
	s.checkpoints[name] = v
}

func checkNames(m map[string]Vector) error {
	for name := range m {
		if name == "" || len(name) > maxName {
			return fmt.Errorf("checkpoint named with %d bytes: expected 1 to %d", len(name), maxName)
		}
	}
	return nil
}
