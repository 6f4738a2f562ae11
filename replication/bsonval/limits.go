package bsonval

import (
	"fmt"
	"math"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Limits of a stored document ("MongoDB Limits and Thresholds" in the manual).
const (
	MaxDocumentSize = 16 << 20
	MaxDepth        = 100
)

// Decode reads one document of the value model from BSON bytes; what is too large or too deep is refused.
func Decode(raw []byte) (bson.D, error) {
	if len(raw) > MaxDocumentSize {
		return nil, tooLarge(len(raw))
	}
	var d bson.D
	if err := bson.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("decode document: %w", err)
	}
	return d, CheckDepth(d)
}

// CheckLimits refuses a document that a server would not store: larger than 16 MiB, or nested deeper than 100.
func CheckLimits(d bson.D) error {
	if err := CheckDepth(d); err != nil {
		return err
	}
	if n := Size(d); n > MaxDocumentSize {
		return tooLarge(n)
	}
	return nil
}

func tooLarge(n int) error {
	return Errorf(ObjectTooLarge, "BSONObj size: %d is invalid. Size must be between 0 and %d", n, MaxDocumentSize)
}

// CheckDepth refuses a value nested deeper than MaxDepth.
func CheckDepth(v any) error {
	if deeperThan(v, MaxDepth) {
		return Errorf(Overflow, "document exceeds the maximum nesting depth of %d", MaxDepth)
	}
	return nil
}

func deeperThan(v any, limit int) bool {
	switch x := v.(type) {
	case bson.D:
		for i := range x {
			if limit == 0 || deeperThan(x[i].Value, limit-1) {
				return true
			}
		}
		return limit == 0
	case bson.A:
		for _, e := range x {
			if limit == 0 || deeperThan(e, limit-1) {
				return true
			}
		}
		return limit == 0
	case bson.CodeWithScope:
		return deeperThan(scope(x), limit)
	}
	return false
}

// Size is the length of the document as BSON, without encoding it.
func Size(d bson.D) int {
	n := 5 // length and end
	for i := range d {
		n += 2 + len(d[i].Key) + valueSize(d[i].Value)
	}
	return n
}

func valueSize(v any) int {
	switch x := v.(type) {
	case float64, int64, bson.DateTime, bson.Timestamp:
		return 8
	case int32:
		return 4
	case bool:
		return 1
	case string:
		return 5 + len(x)
	case bson.D:
		return Size(x)
	case bson.A:
		return arraySize(x)
	case bson.ObjectID:
		return 12
	case bson.Decimal128:
		return 16
	}
	return rareSize(v)
}

func rareSize(v any) int {
	switch x := v.(type) {
	case bson.Binary:
		if x.Subtype == bson.TypeBinaryBinaryOld {
			return 9 + len(x.Data)
		}
		return 5 + len(x.Data)
	case bson.Regex:
		return 2 + len(x.Pattern) + len(x.Options)
	case bson.Symbol:
		return 5 + len(x)
	case bson.JavaScript:
		return 5 + len(x)
	case bson.CodeWithScope:
		return 9 + len(x.Code) + Size(scope(x))
	case bson.DBPointer:
		return 17 + len(x.DB)
	}
	return 0
}

func arraySize(a bson.A) int {
	n, width, next := 5, 1, 10
	for i, e := range a {
		if i == next { // the key is the index in decimal
			width, next = width+1, next*10
		}
		n += 2 + width + valueSize(e)
	}
	return n
}

// Normalize turns what a Go programmer writes into a value: int by its size, time.Time, []byte, []any, maps excepted
// (a map has no order). A value comes back as it is.
func Normalize(v any) (any, error) {
	switch x := v.(type) {
	case bson.D:
		out := make(bson.D, len(x))
		for i, e := range x {
			n, err := Normalize(e.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.Key, err)
			}
			out[i] = bson.E{Key: e.Key, Value: n}
		}
		return out, nil
	case bson.A:
		return normalizeArray(x)
	case []any:
		return normalizeArray(x)
	case int:
		if x >= math.MinInt32 && x <= math.MaxInt32 {
			return int32(x), nil
		}
		return int64(x), nil
	case time.Time:
		return bson.NewDateTimeFromTime(x), nil
	case []byte:
		return bson.Binary{Data: x}, nil
	case bson.Null:
		return nil, nil
	}
	return checkedValue(v)
}

func normalizeArray(a []any) (any, error) {
	out := make(bson.A, len(a))
	for i, e := range a {
		n, err := Normalize(e)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", i, err)
		}
		out[i] = n
	}
	return out, nil
}

func checkedValue(v any) (any, error) {
	if _, ok := typeOf(v); !ok {
		return nil, fmt.Errorf("a %T is not a BSON value", v)
	}
	return v, nil
}
