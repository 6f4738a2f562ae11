package crdt

import (
	"encoding/binary"
	"fmt"
	"maps"
	"time"
)

// Stamp is one tick of a hybrid logical clock: 43 bits of milliseconds since 2020-01-01 UTC, a 12-bit counter and the
// 8-bit id of the node that made it. Stamps of all nodes are totally ordered by one comparison.
type Stamp int64

// Origin is the id of a node, 1…255; 0 stands for data that was there before replication.
type Origin uint8

// Adopted is the stamp of data that was there before replication: older than all others.
const Adopted Stamp = 1 << originBits

const (
	originBits  = 8
	counterBits = 12
	maxCounter  = 1<<counterBits - 1
)

// epoch is the time stamps count from.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// NewStamp packs its parts; a counter beyond 12 bits carries into the milliseconds.
func NewStamp(millis int64, counter int64, o Origin) Stamp {
	return Stamp(((millis<<counterBits)+counter)<<originBits | int64(o))
}

// Origin is the node that made the stamp.
func (s Stamp) Origin() Origin { return Origin(s & (1<<originBits - 1)) }

// Millis is the stamp's time in milliseconds since 2020-01-01 UTC.
func (s Stamp) Millis() int64 { return int64(s) >> (originBits + counterBits) }

// Counter tells stamps of one millisecond and node apart.
func (s Stamp) Counter() int64 { return int64(s) >> originBits & maxCounter }

// Time is the stamp's time.
func (s Stamp) Time() time.Time { return epoch.Add(time.Duration(s.Millis()) * time.Millisecond) }

// MillisAt is a time in the stamps' unit.
func MillisAt(t time.Time) int64 { return t.Sub(epoch).Milliseconds() }

func (s Stamp) String() string { return fmt.Sprintf("%d.%d@%d", s.Millis(), s.Counter(), s.Origin()) }

// Next is the first stamp of an origin that is after last and not before the wall clock: the clock may stand still or
// step back, stamps don't.
func Next(last Stamp, millis int64, o Origin) Stamp {
	tick := int64(last)>>originBits + 1
	return Stamp(max(tick, millis<<counterBits)<<originBits | int64(o))
}

// Vector says, per origin, up to which sequence number something is known without gaps.
type Vector map[Origin]uint64

// Clone is a copy of its own.
func (v Vector) Clone() Vector {
	if v == nil {
		return Vector{}
	}
	return maps.Clone(v)
}

// Covers says whether v knows everything that w does.
func (v Vector) Covers(w Vector) bool {
	for o, n := range w {
		if v[o] < n {
			return false
		}
	}
	return true
}

// Raise makes v cover w.
func (v Vector) Raise(w Vector) {
	for o, n := range w {
		v[o] = max(v[o], n)
	}
}

// Dot names an array element: the stamp of the write that brought it, and its place among what that write brought.
type Dot struct {
	Stamp Stamp
	Index uint32
}

func (d Dot) compare(e Dot) int {
	switch {
	case d.Stamp != e.Stamp:
		if d.Stamp < e.Stamp {
			return -1
		}
		return 1
	case d.Index != e.Index:
		if d.Index < e.Index {
			return -1
		}
		return 1
	}
	return 0
}

func (d Dot) String() string { return fmt.Sprintf("%v#%d", d.Stamp, d.Index) }

// appendStamp writes stamps as differences, which are small among neighbours.
func appendStamp(b []byte, prev, s Stamp) []byte { return binary.AppendVarint(b, int64(s-prev)) }
