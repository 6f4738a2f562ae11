package operators

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// predicate is a test of one value, which may be bsonval.Missing.
type predicate interface {
	met(run *evaluation, v any) bool
}

func isNullish(v any) bool {
	switch v.(type) {
	case nil, bson.Undefined, bsonval.Missing:
		return true
	}
	return false
}

// comparison is $eq, $gt, $gte, $lt, $lte: only values of one rank compare, except that null means missing too and
// that everything compares with MinKey and MaxKey.
type comparison struct {
	op   string
	with any
}

func (p comparison) met(_ *evaluation, v any) bool {
	if isNullish(p.with) {
		return isNullish(v) && p.op != "$gt" && p.op != "$lt"
	}
	rank := bsonval.Rank(p.with)
	bound := rank < 0 || rank == 127
	if bsonval.Rank(v) != rank && !(bound && p.op != "$eq") {
		return false
	}
	if isNaN(v) || isNaN(p.with) {
		return isNaN(v) && isNaN(p.with) && p.op != "$gt" && p.op != "$lt"
	}
	return holds(p.op, bsonval.Compare(v, p.with))
}

func holds(op string, c int) bool {
	switch op {
	case "$eq":
		return c == 0
	case "$gt":
		return c > 0
	case "$gte":
		return c >= 0
	case "$lt":
		return c < 0
	}
	return c <= 0
}

func isNaN(v any) bool {
	switch x := v.(type) {
	case float64:
		return x != x
	case bson.Decimal128:
		return x.IsNaN()
	}
	return false
}

type exists struct{}

func (exists) met(_ *evaluation, v any) bool {
	_, missing := v.(bsonval.Missing)
	return !missing
}

// oneOf is $in.
type oneOf struct {
	values  map[string]bool // canonical forms
	null    bool
	regexes []pattern
}

func (p oneOf) met(run *evaluation, v any) bool {
	if isNullish(v) {
		return p.null
	}
	if p.values[string(bsonval.Canonical(v))] {
		return true
	}
	for _, r := range p.regexes {
		if r.met(run, v) {
			return true
		}
	}
	return false
}

func parseIn(path []string, op bson.E) (node, error) {
	list, ok := op.Value.(bson.A)
	if !ok {
		return nil, refuse("%s needs an array", op.Key)
	}
	p := oneOf{values: map[string]bool{}}
	for _, v := range list {
		if _, ok := isOperators(v); ok {
			return nil, refuse("cannot nest $ under %s", op.Key)
		}
		switch x := v.(type) {
		case bson.Regex:
			r, err := newPattern(x.Pattern, x.Options)
			if err != nil {
				return nil, err
			}
			p.regexes = append(p.regexes, r)
		case bson.Undefined:
			return nil, refuse("InMatchExpression equality cannot be undefined")
		case nil:
			p.null = true
		default:
			p.values[string(bsonval.Canonical(v))] = true
		}
	}
	return field{path: path, into: true, test: p}, nil
}

type ofType struct {
	types  map[bson.Type]bool
	number bool
}

func (p ofType) met(_ *evaluation, v any) bool {
	t := bsonval.TypeOf(v)
	return t != bsonval.TypeMissing && (p.types[t] || p.number && bsonval.IsNumber(v))
}

func parseType(path []string, v any) (node, error) {
	list, ok := v.(bson.A)
	if !ok {
		list = bson.A{v}
	}
	if len(list) == 0 {
		return nil, bsonval.Errorf(bsonval.FailedToParse, "a must match at least one type")
	}
	p := ofType{types: map[bson.Type]bool{}}
	for _, v := range list {
		if err := p.add(v); err != nil {
			return nil, err
		}
	}
	return field{path: path, into: true, test: p}, nil
}

func (p *ofType) add(v any) error {
	if name, ok := v.(string); ok {
		t, known := bsonval.TypeByName(name)
		p.number = p.number || name == "number"
		if !known && name != "number" {
			return refuse("Unknown type name alias: %s", name)
		}
		if known {
			p.types[t] = true
		}
		return nil
	}
	if !bsonval.IsNumber(v) {
		return bsonval.Errorf(bsonval.TypeMismatch, "type must be represented as a number or a string")
	}
	n, ok := bsonval.ToExactInt64(v)
	t := bson.Type(byte(n))
	if !ok || n < -1 || n > 127 || n == 0 || !t.IsValid() && n != -1 {
		return refuse("Invalid numerical type code: %v", v)
	}
	p.types[t] = true
	return nil
}

type size int64

func (p size) met(_ *evaluation, v any) bool {
	a, ok := v.(bson.A)
	return ok && int64(len(a)) == int64(p)
}

func parseSize(path []string, v any) (node, error) {
	n, ok := bsonval.ToExactInt64(v)
	if !ok || n < 0 {
		return nil, bsonval.Errorf(bsonval.FailedToParse, "Failed to parse $size. Expected a non-negative integer in: $size: %v", v)
	}
	return field{path: path, test: size(n)}, nil
}

// elemMatch is met by an array of which one element meets all conditions.
type elemMatch struct {
	values bool // conditions on the element itself, not on its fields
	of     node
}

func (p elemMatch) met(run *evaluation, v any) bool {
	a, ok := v.(bson.A)
	if !ok {
		return false
	}
	for i, e := range a {
		if p.element(run, e) {
			run.note(i)
			return true
		}
	}
	return false
}

func (p elemMatch) element(run *evaluation, e any) bool {
	return run.unrecorded(func() bool {
		if p.values {
			return p.of.single(run, e)
		}
		switch x := e.(type) {
		case bson.D:
			return p.of.match(run, x)
		case bson.A:
			return p.of.match(run, bsonval.ArrayDocument(x))
		}
		return false
	})
}

type modulo struct{ divisor, remainder int64 }

func (p modulo) met(_ *evaluation, v any) bool {
	n, ok := bsonval.ToInt64(v)
	return ok && (p.divisor == -1 && p.remainder == 0 || p.divisor != -1 && n%p.divisor == p.remainder)
}

func parseMod(path []string, v any) (node, error) {
	list, ok := v.(bson.A)
	switch {
	case !ok:
		return nil, refuse("malformed mod, needs to be an array")
	case len(list) < 2:
		return nil, refuse("malformed mod, not enough elements")
	case len(list) > 2:
		return nil, refuse("malformed mod, too many elements")
	}
	divisor, okd := bsonval.ToInt64(list[0])
	remainder, okr := bsonval.ToInt64(list[1])
	switch {
	case !okd:
		return nil, refuse("malformed mod, divisor not a number")
	case !okr:
		return nil, refuse("malformed mod, remainder not a number")
	case divisor == 0:
		return nil, refuse("divisor cannot be 0")
	}
	return field{path: path, into: true, test: modulo{divisor, remainder}}, nil
}

// bits is $bitsAllSet and its three siblings; mask holds bit positions.
type bits struct {
	positions []int64
	set, all  bool
}

func (p bits) met(_ *evaluation, v any) bool {
	at, ok := bitReader(v)
	if !ok {
		return false
	}
	for _, n := range p.positions {
		if (at(n) == p.set) != p.all {
			return !p.all
		}
	}
	return p.all
}

// bitReader reads the bits of a whole number (two's complement, sign extended for ever) or of binary data.
func bitReader(v any) (func(int64) bool, bool) {
	if b, ok := v.(bson.Binary); ok {
		return func(n int64) bool { return n/8 < int64(len(b.Data)) && b.Data[n/8]>>(n%8)&1 == 1 }, true
	}
	i, ok := bsonval.ToExactInt64(v)
	return func(n int64) bool { return i>>min(n, 63)&1 == 1 }, ok
}

func parseBits(path []string, op bson.E) (node, error) {
	positions, err := bitPositions(op)
	p := bits{positions: positions, set: strings.HasSuffix(op.Key, "Set"), all: strings.HasPrefix(op.Key, "$bitsAll")}
	return field{path: path, into: true, test: p}, err
}

func bitPositions(op bson.E) (positions []int64, err error) {
	if list, ok := op.Value.(bson.A); ok {
		for _, v := range list {
			n, ok := bsonval.ToExactInt64(v)
			if !ok || n < 0 {
				return nil, refuse("bit positions in %s must be integers >= 0 but got: %v", op.Key, v)
			}
			positions = append(positions, n)
		}
		return positions, nil
	}
	at, ok := bitReader(op.Value)
	last := int64(63)
	if b, binary := op.Value.(bson.Binary); binary {
		last = int64(len(b.Data))*8 - 1
	} else if n, _ := bsonval.ToExactInt64(op.Value); !ok || n < 0 {
		return nil, refuse("%s takes an Array, a number, or a BinData but received: %v", op.Key, op.Value)
	}
	for n := int64(0); n <= last; n++ {
		if at(n) {
			positions = append(positions, n)
		}
	}
	return positions, nil
}
