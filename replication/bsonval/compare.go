package bsonval

import (
	"bytes"
	"cmp"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Compare is MongoDB's total order of values: by type rank first, numbers by their mathematical value whatever their
// type (NaN below all, equal to itself), documents field by field in their order (type, name, value), arrays element by
// element. The result is -1, 0 or +1. Strings compare by bytes: there is no collation here.
func Compare(a, b any) int {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y)
		}
	case int32:
		if y, ok := b.(int32); ok {
			return cmp.Compare(x, y)
		}
	}
	ta, tb := TypeOf(a), TypeOf(b)
	ra, rb := rank(ta), rank(tb)
	if ra != rb {
		return cmp.Compare(ra, rb)
	}
	return compareSameRank(a, b, ra)
}

// Equal is Compare(a, b) == 0.
func Equal(a, b any) bool { return Compare(a, b) == 0 }

func compareSameRank(a, b any, r int) int {
	switch r {
	case 10:
		return compareNumbers(a, b)
	case 15:
		return strings.Compare(text(a), text(b))
	case 20:
		return compareDocuments(a.(bson.D), b.(bson.D))
	case 25:
		return compareArrays(a.(bson.A), b.(bson.A))
	}
	return compareScalars(a, b)
}

func compareScalars(a, b any) int {
	switch x := a.(type) {
	case bson.Binary:
		return compareBinaries(x, b.(bson.Binary))
	case bson.ObjectID:
		y := b.(bson.ObjectID)
		return bytes.Compare(x[:], y[:])
	case bool:
		return cmp.Compare(bit(x), bit(b.(bool)))
	case bson.DateTime:
		return cmp.Compare(x, b.(bson.DateTime))
	case bson.Timestamp:
		return x.Compare(b.(bson.Timestamp))
	case bson.Regex:
		y := b.(bson.Regex)
		return cmp.Or(strings.Compare(x.Pattern, y.Pattern), strings.Compare(x.Options, y.Options))
	case bson.DBPointer:
		y := b.(bson.DBPointer)
		return cmp.Or(cmp.Compare(len(x.DB), len(y.DB)), strings.Compare(x.DB, y.DB), bytes.Compare(x.Pointer[:], y.Pointer[:]))
	case bson.JavaScript:
		return strings.Compare(string(x), string(b.(bson.JavaScript)))
	case bson.CodeWithScope:
		y := b.(bson.CodeWithScope)
		return cmp.Or(strings.Compare(string(x.Code), string(y.Code)), compareDocuments(scope(x), scope(y)))
	}
	return 0 // null, undefined, missing, MinKey, MaxKey: one value each
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func text(v any) string {
	if s, ok := v.(bson.Symbol); ok {
		return string(s)
	}
	return v.(string)
}

// scope is the document of a code with scope; the driver types it as any.
func scope(c bson.CodeWithScope) bson.D {
	d, _ := c.Scope.(bson.D)
	return d
}

func compareBinaries(a, b bson.Binary) int {
	return cmp.Or(cmp.Compare(len(a.Data), len(b.Data)), cmp.Compare(a.Subtype, b.Subtype), bytes.Compare(a.Data, b.Data))
}

func compareDocuments(a, b bson.D) int {
	for i := range min(len(a), len(b)) {
		x, y := &a[i], &b[i]
		c := cmp.Or(cmp.Compare(Rank(x.Value), Rank(y.Value)), strings.Compare(x.Key, y.Key))
		if c == 0 {
			c = Compare(x.Value, y.Value)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func compareArrays(a, b bson.A) int {
	for i := range min(len(a), len(b)) {
		if c := Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// Identical is Equal and of the same types throughout: 1 and 1.0 are equal, not identical. It is what decides whether a
// write changes a stored document.
func Identical(a, b any) bool {
	if TypeOf(a) != TypeOf(b) {
		return false
	}
	switch x := a.(type) {
	case bson.D:
		return identicalDocuments(x, b.(bson.D))
	case bson.A:
		return identicalArrays(x, b.(bson.A))
	case float64:
		return identicalFloats(x, b.(float64))
	case bson.Decimal128:
		return x == b.(bson.Decimal128)
	}
	return Compare(a, b) == 0
}

func identicalDocuments(a, b bson.D) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || !Identical(a[i].Value, b[i].Value) {
			return false
		}
	}
	return true
}

func identicalArrays(a, b bson.A) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !Identical(a[i], b[i]) {
			return false
		}
	}
	return true
}
