package crdt

import (
	"math"
	"math/bits"
	"slices"

	"popfleet/replication/bsonval"
)

// A tally is the running total of one origin's increments at one path. Only its origin adds to it, so the newest is the
// greatest.
type tally struct {
	origin Origin
	at     Stamp
	total  number
}

// An extreme is the newest value that one origin's $max or $min put at a path.
type extreme struct {
	origin Origin
	at     Stamp
	val    any
}

// number is an int, a long or a double. Decimals are not counted but set: their sums depend on the order.
type number struct {
	i    int64
	f    float64
	kind numeric
}

type numeric uint8

const (
	int32s numeric = iota
	int64s
	floats
)

func numberOf(v any) (number, bool) {
	switch x := v.(type) {
	case int32:
		return number{i: int64(x)}, true
	case int64:
		return number{i: x, kind: int64s}, true
	case float64:
		return number{f: x, kind: floats}, true
	}
	return number{}, false
}

func (n number) float() float64 {
	if n.kind == floats {
		return n.f
	}
	return float64(n.i)
}

// value is the number in the server's types: an int that outgrew 32 bits is a long.
func (n number) value() any {
	switch {
	case n.kind == floats:
		return n.f
	case n.kind == int64s || n.i != int64(int32(n.i)):
		return n.i
	}
	return int32(n.i)
}

// plus is n+m for a running total; false where it has no exact or finite result.
func (n number) plus(m number) (number, bool) {
	k := max(n.kind, m.kind)
	if k == floats {
		f := n.float() + m.float()
		return number{f: f, kind: k}, !math.IsInf(f, 0) && !math.IsNaN(f)
	}
	sum := n.i + m.i
	return number{i: sum, kind: k}, (sum > n.i) == (m.i > 0)
}

// since is what an origin added after the deciding write saw it.
func (t tally) since(seen []tally) (number, bool) {
	s, ok := tallyOf(seen, t.origin)
	if !ok {
		return t.total, true
	}
	if s.at >= t.at {
		return number{}, false
	}
	if t.total.kind == floats || s.total.kind == floats {
		return number{f: t.total.float() - s.total.float(), kind: floats}, true
	}
	return number{i: t.total.i - s.total.i, kind: t.total.kind}, true
}

func tallyOf(ts []tally, o Origin) (tally, bool) {
	i, ok := findTally(ts, o)
	if !ok {
		return tally{}, false
	}
	return ts[i], true
}

func findTally(ts []tally, o Origin) (int, bool) {
	return slices.BinarySearchFunc(ts, o, func(t tally, o Origin) int { return int(t.origin) - int(o) })
}

func joinTallies(a, b []tally) []tally {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	out := slices.Clone(a)
	for _, t := range b {
		i, ok := findTally(out, t.origin)
		switch {
		case !ok:
			out = slices.Insert(out, i, t)
		case out[i].at < t.at:
			out[i] = t
		}
	}
	return out
}

func joinExtremes(a, b []extreme) []extreme {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	out := slices.Clone(a)
	for _, x := range b {
		i, ok := slices.BinarySearchFunc(out, x.origin, func(e extreme, o Origin) int { return int(e.origin) - int(o) })
		switch {
		case !ok:
			out = slices.Insert(out, i, x)
		case out[i].at < x.at:
			out[i] = x
		}
	}
	return out
}

// alive drops the extremes that the deciding write covers.
func alive(xs []extreme, stamp Stamp) []extreme {
	covered := func(x extreme) bool { return x.at <= stamp }
	if !slices.ContainsFunc(xs, covered) {
		return xs
	}
	return slices.DeleteFunc(slices.Clone(xs), covered)
}

// extremum is the greatest (sign 1) or least (sign -1) of v and the extremes. Among equal ones of different types the
// origin's id decides.
func extremum(v any, present bool, xs []extreme, sign int) (any, bool) {
	for _, x := range xs {
		if !present || bsonval.Compare(x.val, v)*sign > 0 {
			v, present = x.val, true
		}
	}
	return v, present
}

// addition is the sum of what the origins added after the deciding write, in the order of their ids, because doubles
// care. Integers are summed in 128 bits and saturate at the end, because saturation cares too.
type addition struct {
	hi    int64
	lo    uint64
	f     float64
	kind  numeric
	terms int
}

func (a *addition) add(n number) {
	a.terms++
	a.kind = max(a.kind, n.kind)
	if n.kind == floats {
		a.f += n.f
		return
	}
	lo, carry := bits.Add64(a.lo, uint64(n.i), 0)
	a.lo, a.hi = lo, a.hi+(n.i>>63)+int64(carry)
}

// number is the sum, and whether it had to be saturated.
func (a *addition) number() (number, bool) {
	i, over := int64(a.lo), false
	if a.hi != i>>63 {
		i, over = math.MaxInt64, true
		if a.hi < 0 {
			i = math.MinInt64
		}
	}
	if a.kind == floats {
		f := a.f + float64(i)
		if over {
			f = a.f + float64(a.hi)*(1<<64) + float64(a.lo)
		}
		return number{f: f, kind: floats}, false
	}
	return number{i: i, kind: a.kind}, over
}

func sumOf(inc, seen []tally) addition {
	var sum addition
	for _, t := range inc {
		if n, ok := t.since(seen); ok {
			sum.add(n)
		}
	}
	return sum
}

// counted is base plus what was added to it since.
func counted(base any, present bool, inc, seen []tally) (any, bool) {
	if len(inc) == 0 {
		return base, present
	}
	sum := sumOf(inc, seen)
	if sum.terms == 0 {
		return base, present
	}
	if !present {
		n, _ := sum.number()
		return n.value(), true
	}
	if b, ok := numberOf(base); ok {
		sum.add(b)
		n, _ := sum.number()
		return n.value(), true
	}
	if !bsonval.IsNumber(base) {
		return base, true
	}
	n, _ := sum.number()
	total, err := bsonval.Add(base, n.value())
	if err != nil {
		return base, true
	}
	return total, true
}
