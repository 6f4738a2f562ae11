package stream

import (
	"errors"

	"popfleet/replication/oplog"
)

// Source is the log's read side.
type Source interface {
	// Vector is how far each origin's entries can be read.
	Vector() oplog.Vector
	// Read returns an origin's entries from a sequence on, at least one when there is one. *oplog.TruncatedError and
	// *oplog.DamageError mean that this source can't serve them.
	Read(origin uint8, from uint64, maxBytes int) ([]oplog.Entry, error)
	// Changed is closed when Vector moves next.
	Changed() <-chan struct{}
}

// feed is what one subscriber gets next: the wanted origins' entries, merged by their stamps, so that an effect comes
// after its cause. Its buffers are bounded: one read of each origin.
type feed struct {
	source  Source
	read    int // bytes of one read
	cursors map[uint8]*cursor
}

type cursor struct {
	next   uint64 // to be read
	buffer []oplog.Entry
}

// readBytes is of one read of one origin.
const readBytes = 64 << 10

func newFeed(s Source) *feed {
	return &feed{source: s, read: readBytes, cursors: map[uint8]*cursor{}}
}

func (f *feed) subscribe(s subscribe) {
	clear(f.cursors)
	for origin, seq := range s.from {
		f.cursors[origin] = &cursor{next: seq + 1}
	}
}

// next is at most about size bytes of entries, and refusals of origins that can't be served: they are not wanted any more.
func (f *feed) next(size int) (entries []oplog.Entry, refused []refusal, err error) {
	heads := f.source.Vector()
	for size > 0 {
		r, err := f.fill(heads)
		if err != nil {
			return entries, refused, err
		}
		refused = append(refused, r...)
		c := f.least()
		if c == nil {
			return entries, refused, nil
		}
		e := c.buffer[0]
		c.buffer = c.buffer[1:]
		size -= len(e.Payload) + len(e.NS) + 64
		entries = append(entries, e)
	}
	return entries, refused, nil
}

// fill reads for every origin that has more, so that the least stamp of all is known.
func (f *feed) fill(heads oplog.Vector) (refused []refusal, err error) {
	for origin, c := range f.cursors {
		if len(c.buffer) > 0 || c.next > heads[origin] {
			continue
		}
		c.buffer, err = f.source.Read(origin, c.next, f.read)
		if gone, ok := errors.AsType[*oplog.TruncatedError](err); ok {
			refused = append(refused, refusal{refusedTruncated, origin, gone.Floor, gone.Error()})
			delete(f.cursors, origin)
		} else if damaged, ok := errors.AsType[*oplog.DamageError](err); ok {
			refused = append(refused, refusal{refusedDamaged, origin, damaged.To, damaged.Error()})
			delete(f.cursors, origin)
		} else if err != nil {
			return refused, err
		}
		c.next += uint64(len(c.buffer))
	}
	return refused, nil
}

func (f *feed) least() *cursor {
	var least *cursor
	for _, c := range f.cursors {
		if len(c.buffer) > 0 && (least == nil || before(c.buffer[0], least.buffer[0])) {
			least = c
		}
	}
	return least
}

func before(a, b oplog.Entry) bool {
	return a.HLC < b.HLC || a.HLC == b.HLC && a.Origin < b.Origin
}
