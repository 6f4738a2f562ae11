package operators

import (
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// noOffset marks a value that was not reached by going through an array's elements.
const noOffset = -1

// visit gets one value that a query path leads to and the index of the outermost array element that was gone through
// without being named; true ends the walk.
type visit func(v any, offset int) bool

// walk visits what path leads to in d, as a query means it: a name below an array means that name in each of its
// documents, a number also means the element; an array at the end stands for its elements first and for itself last
// (for itself only, if not into). A document without the field yields bsonval.Missing.
func walk(d bson.D, path []string, into bool, yield visit) bool {
	for i, name := range path {
		v := bsonval.Field(d, name)
		switch x := v.(type) {
		case bson.A:
			if i == len(path)-1 {
				return walkLeaf(x, into, yield)
			}
			return walkElements(x, path[i+1:], into, yield)
		case bson.D:
			if i == len(path)-1 {
				return yield(x, noOffset)
			}
			d = x
		default:
			if i < len(path)-1 {
				v = bsonval.Missing{}
			}
			return yield(v, noOffset)
		}
	}
	return false
}

func walkLeaf(a bson.A, into bool, yield visit) bool {
	if into {
		for i, e := range a {
			if yield(e, i) {
				return true
			}
		}
	}
	return yield(a, noOffset)
}

// walkElements goes on with rest, which is not empty, below the elements of an array.
func walkElements(a bson.A, rest []string, into bool, yield visit) bool {
	for i, e := range a {
		named := rest[0] == strconv.Itoa(i)
		if d, ok := e.(bson.D); ok {
			outer := func(v any, _ int) bool { return yield(v, i) }
			if walk(d, rest, into, outer) || named && walkNamed(e, rest[1:], into, yield) {
				return true
			}
		} else if named && walkNamed(e, rest[1:], into, yield) {
			return true
		}
	}
	return false
}

// walkNamed goes on below an element that the path names by its index; unlike at a field, an array that ends the path
// there does not stand for its elements.
func walkNamed(e any, rest []string, into bool, yield visit) bool {
	if len(rest) == 0 {
		return yield(e, noOffset)
	}
	switch x := e.(type) {
	case bson.D:
		return walk(x, rest, into, yield)
	case bson.A:
		return walkElements(x, rest, into, yield)
	}
	return false
}
