package oplog

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// maxAhead bounds how far beyond an origin's last contiguous entry one is taken: as many local writes may be on their
// way at once.
const maxAhead = 1 << 16

// Position is where one origin's entries stand.
type Position struct {
	Floor uint64 // entries up to here are gone: everybody has them
	Head  uint64 // entries up to here are all there, or were
	HLC   int64  // the greatest of the entries up to Head
}

// Span is a stretch of sequences, both ends included.
type Span struct{ From, To uint64 }

// track is the committer's view of one origin: its position, and entries beyond a hole.
type track struct {
	Position
	beyond map[uint64]int64 // seq → HLC
}

// has is whether seq is there, or was.
func (t *track) has(seq uint64) bool {
	_, beyond := t.beyond[seq]
	return seq <= t.Head || beyond
}

// add notes that seq is there and moves Head over what has become contiguous.
func (t *track) add(seq uint64, hlc int64) {
	t.beyond[seq] = hlc
	for {
		h, ok := t.beyond[t.Head+1]
		if !ok {
			return
		}
		delete(t.beyond, t.Head+1)
		t.Head++
		t.HLC = max(t.HLC, h)
	}
}

// rebase moves floor and head up to seq: what lies below has arrived by another way.
func (t *track) rebase(seq uint64) {
	t.Floor, t.Head = max(t.Floor, seq), max(t.Head, seq)
	for s := range t.beyond {
		if s <= t.Head {
			t.HLC = max(t.HLC, t.beyond[s])
			delete(t.beyond, s)
		}
	}
	if h, ok := t.beyond[t.Head+1]; ok {
		t.add(t.Head+1, h)
	}
}

// holes are the stretches between Head and through that are missing.
func (t *track) holes(through uint64) (all []Span) {
	seqs := make([]uint64, 0, len(t.beyond)+1)
	for s := range t.beyond {
		seqs = append(seqs, s)
	}
	slices.Sort(seqs)
	next := t.Head + 1
	for _, s := range seqs {
		if s > next {
			all = append(all, Span{next, s - 1})
		}
		next = s + 1
	}
	if next <= through {
		all = append(all, Span{next, through})
	}
	return all
}

func (p Position) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, p.Floor)
	b = binary.BigEndian.AppendUint64(b, p.Head)
	return binary.BigEndian.AppendUint64(b, uint64(p.HLC))
}

func parsePosition(b []byte) (Position, error) {
	if len(b) != 24 {
		return Position{}, fmt.Errorf("%w: position of %d bytes", ErrFormat, len(b))
	}
	p := Position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), int64(binary.BigEndian.Uint64(b[16:]))}
	if p.Floor > p.Head || p.HLC < 0 {
		return Position{}, fmt.Errorf("%w: position %+v", ErrFormat, p)
	}
	return p, nil
}
