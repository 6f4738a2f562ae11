package oplog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble"
)

const formatVersion = 1

// load takes up what is on disk.
func (l *Log) load() error {
	if err := l.loadIdentity(); err != nil {
		return err
	}
	if err := l.loadMeta(); err != nil {
		return err
	}
	if err := l.each(spaceOrigin, l.loadOrigin); err != nil {
		return err
	}
	if err := l.each(spaceCheckpoint, l.loadCheckpoint); err != nil {
		return err
	}
	if err := l.each(spaceSession, l.sessions.load); err != nil {
		return err
	}
	l.sessions.loaded()
	for origin, t := range l.tracks {
		if err := l.loadBeyond(origin, t); err != nil {
			return err
		}
	}
	return nil
}

// loadIdentity checks whose log it is. A new log gets its lease file before its identity, so that one that has an
// identity and no lease file has lost it.
func (l *Log) loadIdentity() error {
	got, err := l.get([]byte{spaceIdentity})
	if err != nil {
		return err
	}
	if err := l.openLease(got == nil); err != nil {
		return err
	}
	if got == nil {
		return l.db.Set([]byte{spaceIdentity}, []byte{formatVersion, l.opts.Origin}, pebble.Sync)
	}
	if len(got) < 2 || got[0] != formatVersion {
		return fmt.Errorf("%w: identity %x; expected version %d", ErrFormat, got, formatVersion)
	}
	if got[1] != l.opts.Origin {
		return fmt.Errorf("%w: of origin %d; this is %d", ErrOrigin, got[1], l.opts.Origin)
	}
	return nil
}

func (l *Log) loadMeta() (err error) {
	raw, err := l.get([]byte{spaceMeta})
	if err == nil && raw != nil {
		l.meta, err = parseMeta(raw)
	}
	return err
}

func (l *Log) loadOrigin(key, value []byte) error {
	p, err := parsePosition(value)
	if err != nil || len(key) != 2 {
		return errors.Join(fmt.Errorf("%w: origin's key %x", ErrFormat, key), err)
	}
	l.tracks[key[1]] = &track{Position: p, beyond: map[uint64]int64{}}
	l.positions[key[1]] = p
	return nil
}

func (l *Log) loadCheckpoint(key, value []byte) error {
	v, _, err := ParseVector(value)
	if err != nil {
		return fmt.Errorf("checkpoint %q: %w", key[1:], err)
	}
	l.checkpoints[string(key[1:])] = v
	return nil
}

// loadBeyond finds the entries behind holes: only what was on its way when the process ended, so this reads little
// however long the log is. A damaged one counts as missing.
func (l *Log) loadBeyond(origin uint8, t *track) error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: logKey(origin, t.Head+1), UpperBound: after(spaceLog, origin)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		_, seq, err := parseLogKey(it.Key())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		e, err := ParseEntry(it.Value())
		if err != nil || e.Origin != origin || e.Seq != seq {
			l.opts.Log.Warn("entry behind a hole is damaged", "origin", origin, "seq", seq)
			continue
		}
		t.beyond[seq] = e.HLC
	}
	return it.Close()
}

func (l *Log) each(space byte, f func(key, value []byte) error) error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: after(space)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// get is nil when there is no such key.
func (l *Log) get(key []byte) ([]byte, error) {
	v, closer, err := l.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

func appendSessionValue(b []byte, usedMs int64, origin uint8, seq uint64, result []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(usedMs))
	b = append(b, origin)
	b = binary.BigEndian.AppendUint64(b, seq)
	return append(b, result...)
}

// sessionHead is what stands before the result.
const sessionHead = 17

func parseSessionValue(b []byte) (usedMs int64, origin uint8, seq uint64, result []byte, err error) {
	if len(b) < sessionHead {
		return 0, 0, 0, nil, fmt.Errorf("%w: session of %d bytes", ErrFormat, len(b))
	}
	return int64(binary.BigEndian.Uint64(b)), b[8], binary.BigEndian.Uint64(b[9:]), b[sessionHead:], nil
}
