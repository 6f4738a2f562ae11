package expression

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// maxElements bounds what $range and $concatArrays make: no document holds more elements.
const maxElements = bsonval.MaxDocumentSize / 8

func arrays(name string) (operator, bool) {
	switch name {
	case "$size":
		return operator{1, 1, arraySize}, true
	case "$arrayElemAt":
		return operator{2, 2, elementAt}, true
	case "$first":
		return operator{1, 1, func(n string, args []any) (any, error) { return elementAt(n, append(args, int32(0))) }}, true
	case "$last":
		return operator{1, 1, func(n string, args []any) (any, error) { return elementAt(n, append(args, int32(-1))) }}, true
	case "$concatArrays":
		return operator{0, -1, concatArrays}, true
	case "$slice":
		return operator{2, 3, slice}, true
	case "$reverseArray":
		return operator{1, 1, reverse}, true
	case "$isArray":
		return operator{1, 1, isArray}, true
	case "$in":
		return operator{2, 2, in}, true
	case "$indexOfArray":
		return operator{2, 2, indexOf}, true
	case "$range":
		return operator{2, 3, makeRange}, true
	}
	return operator{}, false
}

func isArray(_ string, args []any) (any, error) {
	_, ok := args[0].(bson.A)
	return ok, nil
}

func arraySize(name string, args []any) (any, error) {
	a, ok := args[0].(bson.A)
	if !ok {
		return nil, fail(17124, "The argument to %s must be an array, but was of type: %s", name, bsonval.TypeName(args[0]))
	}
	return int32(len(a)), nil
}

func elementAt(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	a, ok := args[0].(bson.A)
	if !ok {
		return nil, fail(28689, "%s's first argument must be an array, but is %s", name, bsonval.TypeName(args[0]))
	}
	i, ok := bsonval.ToExactInt64(args[1])
	if !ok {
		return nil, fail(28690, "%s's second argument must be representable as a 32-bit integer: %v", name, args[1])
	}
	if i < 0 {
		i += int64(len(a))
	}
	if i < 0 || i >= int64(len(a)) {
		return bsonval.Missing{}, nil
	}
	return a[i], nil
}

func concatArrays(name string, args []any) (any, error) {
	out := bson.A{}
	for _, v := range args {
		if nullish(v) {
			return nil, nil
		}
		a, ok := v.(bson.A)
		if !ok {
			return nil, fail(28664, "%s only supports arrays, not %s", name, bsonval.TypeName(v))
		}
		if len(out)+len(a) > maxElements {
			return nil, refuseValue("%s: more elements than a document can hold", name)
		}
		out = append(out, a...)
	}
	return out, nil
}

func slice(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	a, ok := args[0].(bson.A)
	if !ok {
		return nil, fail(28724, "First argument to %s must be an array, but is of type: %s", name, bsonval.TypeName(args[0]))
	}
	first, ok := bsonval.ToExactInt64(args[1])
	if !ok {
		return nil, fail(28725, "Second argument to %s must be a whole number, but is: %v", name, args[1])
	}
	if len(args) == 2 {
		return Slice(a, first), nil
	}
	n, ok := bsonval.ToExactInt64(args[2])
	if !ok || n <= 0 {
		return nil, fail(28729, "Third argument to %s must be positive: %v", name, args[2])
	}
	return SliceFrom(a, first, n), nil
}

// Slice is the first n elements, the last -n for a negative n.
func Slice(a bson.A, n int64) bson.A {
	if n < 0 {
		return a[max(0, int64(len(a))+max(n, -int64(len(a)))):]
	}
	return a[:min(n, int64(len(a)))]
}

// SliceFrom is up to n elements from position first, counted from the end if negative.
func SliceFrom(a bson.A, first, n int64) bson.A {
	if first < 0 {
		first = max(0, int64(len(a))+max(first, -int64(len(a))))
	}
	first = min(first, int64(len(a)))
	return a[first : first+min(n, int64(len(a))-first)]
}

func reverse(name string, args []any) (any, error) {
	if nullish(args[0]) {
		return nil, nil
	}
	a, ok := args[0].(bson.A)
	if !ok {
		return nil, fail(34435, "The argument to %s must be an array, but was of type: %s", name, bsonval.TypeName(args[0]))
	}
	out := slices.Clone(a)
	slices.Reverse(out)
	return out, nil
}

func position(a bson.A, v any) int {
	return slices.IndexFunc(a, func(e any) bool { return bsonval.Equal(e, v) })
}

func in(name string, args []any) (any, error) {
	a, ok := args[1].(bson.A)
	if !ok {
		return nil, fail(40081, "%s requires an array as a second argument, found: %s", name, bsonval.TypeName(args[1]))
	}
	return position(a, args[0]) >= 0, nil
}

func indexOf(name string, args []any) (any, error) {
	if nullish(args[0]) {
		return nil, nil
	}
	a, ok := args[0].(bson.A)
	if !ok {
		return nil, fail(40090, "%s requires an array as a first argument, found: %s", name, bsonval.TypeName(args[0]))
	}
	return int32(position(a, args[1])), nil
}

func makeRange(name string, args []any) (any, error) {
	bounds := [3]int64{0, 0, 1}
	for i, v := range args {
		n, ok := bsonval.ToExactInt64(v)
		if !ok || n != int64(int32(n)) {
			return nil, fail(34444, "%s requires whole numbers of 32 bits, found %v", name, v)
		}
		bounds[i] = n
	}
	from, to, step := bounds[0], bounds[1], bounds[2]
	if step == 0 {
		return nil, fail(34449, "%s requires a non-zero step value", name)
	}
	if (to-from)/step > maxElements {
		return nil, refuseValue("%s would make more than %d elements", name, maxElements)
	}
	out := bson.A{}
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		out = append(out, int32(i))
	}
	return out, nil
}
