package bsonval

import (
	"errors"
	"math"
	"math/big"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// ErrNotNumber is what arithmetic answers for a value that is no number.
var ErrNotNumber = errors.New("not a number")

// ErrOverflow is what Add, Sub and Mul answer when two integers have no result in 64 bits; the value that comes with
// it is the nearest that has.
var ErrOverflow = errors.New("64-bit integer overflow")

// ErrZeroDivisor is what Div and Rem answer for a divisor of zero.
var ErrZeroDivisor = errors.New("division by zero")

// Add is a+b by the server's promotion: decimal before double before long before int; an int result that does not fit
// becomes a long, a long result that does not fit is ErrOverflow with the saturated value.
func Add(a, b any) (any, error) {
	return arithmetic(a, b, addExact, func(x, y float64) float64 { return x + y }, addIntegers)
}

// Sub is a-b by the same rules.
func Sub(a, b any) (any, error) {
	minus := func(x, y exact) exact { return addExact(x, negExact(y)) }
	return arithmetic(a, b, minus, func(x, y float64) float64 { return x - y }, subIntegers)
}

// Mul is a×b by the same rules.
func Mul(a, b any) (any, error) {
	return arithmetic(a, b, mulExact, func(x, y float64) float64 { return x * y }, mulIntegers)
}

// integerOperation computes in 64 bits; not ok if the result has no place there, z being then the nearest that has.
type integerOperation func(x, y int64) (z int64, ok bool)

func addIntegers(x, y int64) (int64, bool) {
	z := x + y
	if (z > x) != (y > 0) && y != 0 {
		return limit(y > 0), false
	}
	return z, true
}

func subIntegers(x, y int64) (int64, bool) {
	z := x - y
	if (z < x) != (y > 0) && y != 0 {
		return limit(y < 0), false
	}
	return z, true
}

func mulIntegers(x, y int64) (int64, bool) {
	z := x * y
	if x != 0 && (z/x != y || x == -1 && y == math.MinInt64) {
		return limit((x > 0) == (y > 0)), false
	}
	return z, true
}

func limit(positive bool) int64 {
	if positive {
		return math.MaxInt64
	}
	return math.MinInt64
}

func arithmetic(a, b any, dec func(x, y exact) exact, flt func(x, y float64) float64, in integerOperation) (any, error) {
	if !IsNumber(a) || !IsNumber(b) {
		return nil, ErrNotNumber
	}
	switch promoted(a, b) {
	case bson.TypeDecimal128:
		return decimal(dec(operand(a), operand(b))), nil
	case bson.TypeDouble:
		return flt(ToFloat(a), ToFloat(b)), nil
	case bson.TypeInt64:
		return integers(a, b, in, true)
	}
	return integers(a, b, in, false)
}

// promoted is the type that an operation on a and b happens in.
func promoted(a, b any) bson.Type {
	ta, tb := TypeOf(a), TypeOf(b)
	for _, t := range []bson.Type{bson.TypeDecimal128, bson.TypeDouble, bson.TypeInt64} {
		if ta == t || tb == t {
			return t
		}
	}
	return bson.TypeInt32
}

func integers(a, b any, op integerOperation, long bool) (any, error) {
	z, ok := op(integer(a), integer(b))
	switch {
	case !ok:
		return z, ErrOverflow
	case !long && int64(int32(z)) == z:
		return int32(z), nil
	}
	return z, nil
}

// Div is a/b: a decimal if one of them is, else a double.
func Div(a, b any) (any, error) {
	switch {
	case !IsNumber(a) || !IsNumber(b):
		return nil, ErrNotNumber
	case Compare(b, int32(0)) == 0:
		return nil, ErrZeroDivisor
	case promoted(a, b) == bson.TypeDecimal128:
		return decimal(divExact(operand(a), operand(b))), nil
	}
	return ToFloat(a) / ToFloat(b), nil
}

// Rem is the remainder of a/b with the sign of a, in the promoted type.
func Rem(a, b any) (any, error) {
	switch {
	case !IsNumber(a) || !IsNumber(b):
		return nil, ErrNotNumber
	case Compare(b, int32(0)) == 0:
		return nil, ErrZeroDivisor
	}
	switch promoted(a, b) {
	case bson.TypeDecimal128:
		return decimal(decimalRemainder(operand(a), operand(b))), nil
	case bson.TypeDouble:
		return math.Mod(ToFloat(a), ToFloat(b)), nil
	case bson.TypeInt64:
		return integerRemainder(integer(a), integer(b)), nil
	}
	return int32(integerRemainder(integer(a), integer(b))), nil
}

func integerRemainder(a, b int64) int64 {
	if b == -1 { // MinInt64 % -1 traps on some machines
		return 0
	}
	return a % b
}

func decimalRemainder(a, b exact) exact {
	switch {
	case a.class != classFinite || b.class == classNaN:
		return exact{class: classNaN}
	case b.class != classFinite:
		return a
	}
	return remExact(a, b)
}

// ToFloat is a number as float64, rounded to the nearest.
func ToFloat(v any) float64 {
	switch x := v.(type) {
	case float64:
		return x
	case int32:
		return float64(x)
	case int64:
		return float64(x)
	}
	switch x := exactOf(v); x.class {
	case classNaN:
		return math.NaN()
	case classInfinity:
		return math.Inf(1)
	case classNegativeInfinity:
		return math.Inf(-1)
	default:
		return x.nearestFloat()
	}
}

// ToInt64 is a number's whole part; not ok if v is no number, or its whole part does not fit.
func ToInt64(v any) (i int64, ok bool) {
	switch x := v.(type) {
	case int32:
		return int64(x), true
	case int64:
		return x, true
	case float64:
		return int64(x), x >= -(1<<63) && x < 1<<63
	case bson.Decimal128:
		return exactOfDecimal(x).int64()
	}
	return 0, false
}

func (x exact) int64() (int64, bool) {
	if x.class != classFinite || x.magnitude() > 20 {
		return 0, false
	}
	whole := x.coef
	if x.exp < 0 {
		whole = new(big.Int).Quo(x.coef, powerOfTen(min(-x.exp, 2*precision)))
	} else if x.exp > 0 {
		whole = x.scaledTo(0)
	}
	return whole.Int64(), whole.IsInt64()
}

// ToExactInt64 is ToInt64 for a number that is whole: 3, 3.0, decimal 3.00.
func ToExactInt64(v any) (i int64, ok bool) {
	i, ok = ToInt64(v)
	return i, ok && Compare(i, v) == 0
}
