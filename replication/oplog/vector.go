package oplog

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// Vector is how far somebody has each origin's entries: all with Seq ≤ v[origin]. An origin that is absent stands at 0.
type Vector map[uint8]uint64

// Clone is a copy that shares nothing.
func (v Vector) Clone() Vector {
	c := make(Vector, len(v))
	maps.Copy(c, v)
	return c
}

// Covers is whether v has everything that o has.
func (v Vector) Covers(o Vector) bool {
	for origin, seq := range o {
		if v[origin] < seq {
			return false
		}
	}
	return true
}

// Merge raises v to o where o is further.
func (v Vector) Merge(o Vector) {
	for origin, seq := range o {
		v[origin] = max(v[origin], seq)
	}
}

// Origins are those that stand above 0, ascending.
func (v Vector) Origins() []uint8 {
	var all []uint8
	for origin, seq := range v {
		if seq > 0 {
			all = append(all, origin)
		}
	}
	slices.Sort(all)
	return all
}

// AppendVector adds the encoding of v to b: count, then origin and uvarint seq, ascending. Equal vectors give equal bytes.
func AppendVector(b []byte, v Vector) []byte {
	origins := v.Origins()
	b = append(b, byte(len(origins)))
	for _, o := range origins {
		b = append(b, o)
		b = binary.AppendUvarint(b, v[o])
	}
	return b
}

// ParseVector reads what AppendVector wrote and returns the rest. Nothing but AppendVector's own form is accepted.
func ParseVector(b []byte) (Vector, []byte, error) {
	if len(b) == 0 {
		return nil, nil, fmt.Errorf("%w: vector: empty", ErrFormat)
	}
	count, rest := int(b[0]), b[1:]
	v := make(Vector, count)
	for last := -1; count > 0; count-- {
		if len(rest) == 0 {
			return nil, nil, fmt.Errorf("%w: vector: cut short", ErrFormat)
		}
		origin := rest[0]
		seq, n := binary.Uvarint(rest[1:])
		if n <= 0 || seq == 0 || int(origin) <= last || n > 1 && rest[n] == 0 {
			return nil, nil, fmt.Errorf("%w: vector: element of origin %d", ErrFormat, origin)
		}
		v[origin], last, rest = seq, int(origin), rest[1+n:]
	}
	return v, rest, nil
}
