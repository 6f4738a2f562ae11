package bsonval

import (
	"encoding/binary"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Canonical is a byte string that equal values share and unequal values do not: the identity of an element of a set, or
// a key of a map. It has no order and is no BSON; it is not for storage beyond this version of the program unless the
// format below is versioned by whoever stores it.
//
// Format: one byte of rank, then the payload, every variable length preceded by a uvarint.
func Canonical(v any) []byte { return AppendCanonical(nil, v) }

// AppendCanonical appends Canonical(v) to b.
func AppendCanonical(b []byte, v any) []byte {
	b = append(b, byte(Rank(v)))
	switch x := v.(type) {
	case int32, int64, float64, bson.Decimal128:
		return appendNumber(b, x)
	case string:
		return appendText(b, x)
	case bson.Symbol:
		return appendText(b, string(x))
	case bson.D:
		return appendDocument(b, x)
	case bson.A:
		b = binary.AppendUvarint(b, uint64(len(x)))
		for _, e := range x {
			b = AppendCanonical(b, e)
		}
		return b
	}
	return appendScalar(b, v)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendDocument(b []byte, d bson.D) []byte {
	b = binary.AppendUvarint(b, uint64(len(d)))
	for i := range d {
		b = AppendCanonical(appendText(b, d[i].Key), d[i].Value)
	}
	return b
}

func appendScalar(b []byte, v any) []byte {
	switch x := v.(type) {
	case bson.Binary:
		return appendText(append(b, x.Subtype), string(x.Data))
	case bson.ObjectID:
		return append(b, x[:]...)
	case bool:
		return append(b, byte(bit(x)))
	case bson.DateTime:
		return binary.BigEndian.AppendUint64(b, uint64(x))
	case bson.Timestamp:
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, x.T), x.I)
	case bson.Regex:
		return appendText(appendText(b, x.Pattern), x.Options)
	case bson.DBPointer:
		return append(appendText(b, x.DB), x.Pointer[:]...)
	case bson.JavaScript:
		return appendText(b, string(x))
	case bson.CodeWithScope:
		return appendDocument(appendText(b, string(x.Code)), scope(x))
	}
	return b // one value of that rank
}

// Tags of a number, by the first that can hold it exactly: so int32 5, int64 5, 5.0 and decimal 5.00 share one form.
const (
	tagInteger byte = iota
	tagFloat
	tagDecimal
	tagNaN
	tagInfinity
	tagNegativeInfinity
)

func appendNumber(b []byte, v any) []byte {
	switch x := v.(type) {
	case int32:
		return appendInteger(b, int64(x))
	case int64:
		return appendInteger(b, x)
	case float64:
		return appendFloat(b, x)
	}
	return appendDecimal(b, exactOf(v))
}

func appendInteger(b []byte, i int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, tagInteger), uint64(i))
}

func appendFloat(b []byte, f float64) []byte {
	switch {
	case f != f:
		return append(b, tagNaN)
	case math.IsInf(f, 1):
		return append(b, tagInfinity)
	case math.IsInf(f, -1):
		return append(b, tagNegativeInfinity)
	case f == math.Trunc(f) && f >= -(1<<63) && f < 1<<63:
		return appendInteger(b, int64(f))
	}
	return binary.BigEndian.AppendUint64(append(b, tagFloat), math.Float64bits(f))
}

func appendDecimal(b []byte, x exact) []byte {
	switch x.class {
	case classNaN:
		return append(b, tagNaN)
	case classInfinity:
		return append(b, tagInfinity)
	case classNegativeInfinity:
		return append(b, tagNegativeInfinity)
	}
	x = x.reduced()
	if x.exp >= 0 && x.magnitude() <= 19 {
		if i := x.scaledTo(0); i.IsInt64() {
			return appendInteger(b, i.Int64())
		}
	}
	if f, ok := x.float(); ok {
		return appendFloat(b, f)
	}
	b = append(b, tagDecimal)
	b = binary.AppendVarint(b, int64(x.exp))
	return appendText(b, x.coef.String())
}

// float is the float64 of exactly this value, if there is one.
func (x exact) float() (float64, bool) {
	if m := x.magnitude(); m > 310 || m < -345 {
		return 0, false
	}
	f := x.nearestFloat()
	return f, !math.IsInf(f, 0) && compareExact(x, exactOfFloat(f)) == 0
}
