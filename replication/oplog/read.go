package oplog

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble"
)

// Read returns an origin's entries from seq on, without a hole, until their encodings exceed maxBytes; at least one when
// there is one. It is empty when from is beyond the head. What is damaged is a *DamageError, once Read begins there; what
// was truncated is a *TruncatedError.
func (l *Log) Read(origin uint8, from uint64, maxBytes int) ([]Entry, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	defer l.reads.RUnlock()
	l.mu.Lock()
	p := l.positions[origin]
	l.mu.Unlock()
	switch {
	case from == 0:
		return nil, fmt.Errorf("%w: entries are counted from 1", ErrFormat)
	case from <= p.Floor:
		return nil, &TruncatedError{origin, p.Floor}
	case from > p.Head:
		return nil, nil
	}
	entries, err := l.scan(origin, from, p.Head, maxBytes)
	if len(entries) > 0 || err == nil {
		return entries, nil
	}
	if floor := l.Positions()[origin].Floor; from <= floor { // truncated meanwhile
		return nil, &TruncatedError{origin, floor}
	}
	return nil, l.damage(origin, from, p.Head, err)
}

// begin lets a reader in unless the log is closed or failed; it releases reads when it is done.
func (l *Log) begin() error {
	l.reads.RLock()
	switch {
	case l.closed:
		l.reads.RUnlock()
		return ErrClosed
	case !l.ok():
		l.reads.RUnlock()
		return ErrFailed
	}
	return nil
}

// scan reads until something is not as it should be, and says what.
func (l *Log) scan(origin uint8, from, to uint64, maxBytes int) (entries []Entry, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: logKey(origin, from), UpperBound: logKey(origin, to+1)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	size, next := 0, from
	for ok := it.First(); ok && (size < maxBytes || len(entries) == 0); ok = it.Next() {
		e, err := parseAt(it.Key(), it.Value(), origin, next)
		if err != nil {
			return entries, err
		}
		size += len(it.Value())
		entries = append(entries, e)
		next++
	}
	if err := it.Error(); err != nil {
		return l.scanSingly(entries, origin, next, to, maxBytes-size, err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%w: entry %d is missing", ErrFormat, from)
	}
	return entries, nil
}

// scanSingly goes on where an iterator met a block that is damaged. An iterator needs every block on its way; a single
// get finds a repaired entry, which is newer, before it comes to the damaged one below.
func (l *Log) scanSingly(entries []Entry, origin uint8, next, to uint64, room int, cause error) ([]Entry, error) {
	for ; next <= to && (room > 0 || len(entries) == 0); next++ {
		key := logKey(origin, next)
		value, err := l.get(key)
		if err != nil || value == nil {
			return entries, cause
		}
		e, err := parseAt(key, value, origin, next)
		if err != nil {
			return entries, err
		}
		room -= len(value)
		entries = append(entries, e)
	}
	return entries, nil
}

func parseAt(key, value []byte, origin uint8, seq uint64) (Entry, error) {
	_, at, err := parseLogKey(key)
	if err == nil && at != seq {
		err = fmt.Errorf("%w: entry %d is missing", ErrFormat, seq)
	}
	if err != nil {
		return Entry{}, err
	}
	e, err := ParseEntry(append([]byte(nil), value...))
	if err == nil && (e.Origin != origin || e.Seq != seq) {
		err = fmt.Errorf("%w: entry says origin %d, seq %d", ErrFormat, e.Origin, e.Seq)
	}
	return e, err
}

// damage finds how far the damage that begins at from reaches: ever further until something is readable, then back to the
// first that is. Of two damaged stretches close by it may make one; more is rebuilt then, and nothing is missed.
func (l *Log) damage(origin uint8, from, head uint64, cause error) *DamageError {
	whole := func(seq uint64) bool {
		_, err := l.scan(origin, seq, seq, 1)
		return err == nil
	}
	bad, good := from, head+1
	for far := uint64(1); from+far <= head; far *= 2 {
		if whole(from + far) {
			good = from + far
			break
		}
		bad = from + far
	}
	for bad+1 < good {
		if mid := bad + (good-bad)/2; whole(mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	return &DamageError{origin, from, good - 1, cause}
}

// Verify reads every entry and returns what is damaged. It reads in steps, so that writes go on beside it.
func (l *Log) Verify(ctx context.Context) (all []*DamageError, err error) {
	const chunk = 1 << 20
	for origin, p := range l.Positions() {
		for seq := p.Floor + 1; seq <= p.Head; {
			if err := ctx.Err(); err != nil {
				return all, err
			}
			entries, err := l.Read(origin, seq, chunk)
			if err == nil {
				seq += uint64(len(entries))
			} else if damaged, ok := errors.AsType[*DamageError](err); ok {
				all = append(all, damaged)
				seq = damaged.To + 1
			} else if gone, ok := errors.AsType[*TruncatedError](err); ok {
				seq = gone.Floor + 1
			} else {
				return all, err
			}
		}
	}
	return all, nil
}
