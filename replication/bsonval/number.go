package bsonval

import (
	"cmp"
	"math"
	"math/big"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func compareNumbers(a, b any) int {
	_, da := a.(bson.Decimal128)
	_, db := b.(bson.Decimal128)
	if da || db {
		return compareExact(exactOf(a), exactOf(b))
	}
	x, fx := a.(float64)
	y, fy := b.(float64)
	switch {
	case fx && fy:
		return compareFloats(x, y)
	case fx:
		return -compareIntFloat(integer(b), x)
	case fy:
		return compareIntFloat(integer(a), y)
	}
	return cmp.Compare(integer(a), integer(b))
}

func integer(v any) int64 {
	if i, ok := v.(int32); ok {
		return int64(i)
	}
	return v.(int64)
}

// compareFloats puts NaN below everything; cmp.Compare does, and takes -0 and 0 for equal.
func compareFloats(x, y float64) int { return cmp.Compare(x, y) }

func identicalFloats(x, y float64) bool {
	return math.Float64bits(x) == math.Float64bits(y) || x != x && y != y
}

// compareIntFloat compares exactly: a float64 holds no more than 53 bits of an int64, so neither may be converted
// blindly into the other.
func compareIntFloat(i int64, f float64) int {
	switch {
	case f != f:
		return 1
	case f >= 1<<63:
		return -1
	case f < -(1 << 63):
		return 1
	}
	whole := math.Trunc(f)
	if c := cmp.Compare(i, int64(whole)); c != 0 {
		return c
	}
	return cmp.Compare(0, f-whole)
}

// class of a number: the special ones are ordered by it alone.
const (
	classNaN = iota
	classNegativeInfinity
	classFinite
	classInfinity
)

// exact is a number's mathematical value: coef × 10^exp.
type exact struct {
	class int
	coef  *big.Int
	exp   int
}

// exactOf is the value of any number, exactly. A float64 has a finite decimal expansion.
func exactOf(v any) exact {
	switch x := v.(type) {
	case bson.Decimal128:
		return exactOfDecimal(x)
	case float64:
		return exactOfFloat(x)
	}
	return exact{class: classFinite, coef: big.NewInt(integer(v))}
}

func exactOfDecimal(d bson.Decimal128) exact {
	switch {
	case d.IsNaN():
		return exact{class: classNaN}
	case d.IsInf() > 0:
		return exact{class: classInfinity}
	case d.IsInf() < 0:
		return exact{class: classNegativeInfinity}
	}
	coef, exp, err := d.BigInt()
	if err != nil { // only NaN and infinities fail
		return exact{class: classNaN}
	}
	return exact{class: classFinite, coef: coef, exp: exp}
}

func exactOfFloat(f float64) exact {
	switch {
	case f != f:
		return exact{class: classNaN}
	case math.IsInf(f, 1):
		return exact{class: classInfinity}
	case math.IsInf(f, -1):
		return exact{class: classNegativeInfinity}
	}
	fraction, e := math.Frexp(f)
	coef := big.NewInt(int64(fraction * (1 << 53)))
	e -= 53
	if e >= 0 {
		return exact{class: classFinite, coef: coef.Lsh(coef, uint(e))}
	}
	// m × 2^-n = m × 5^n × 10^-n
	if z := int(min(trailingZeros(coef), uint(-e))); z > 0 {
		coef.Rsh(coef, uint(z))
		e += z
	}
	five := new(big.Int).Exp(big.NewInt(5), big.NewInt(int64(-e)), nil)
	return exact{class: classFinite, coef: coef.Mul(coef, five), exp: e}
}

func trailingZeros(i *big.Int) uint {
	if i.Sign() == 0 {
		return 0
	}
	return i.TrailingZeroBits()
}

func compareExact(a, b exact) int {
	if a.class != b.class || a.class != classFinite {
		return cmp.Compare(a.class, b.class)
	}
	if c := cmp.Compare(a.coef.Sign(), b.coef.Sign()); c != 0 || a.coef.Sign() == 0 {
		return c
	}
	// Unequal magnitudes are told apart without writing out up to 6,000 zeros.
	if c := cmp.Compare(a.magnitude(), b.magnitude()); c != 0 {
		return c * a.coef.Sign()
	}
	low := min(a.exp, b.exp)
	return a.scaledTo(low).Cmp(b.scaledTo(low))
}

// magnitude is the exponent of the leading digit.
func (x exact) magnitude() int { return digits(x.coef) + x.exp }

// scaledTo is the coefficient for a smaller exponent.
func (x exact) scaledTo(exp int) *big.Int {
	if x.exp == exp {
		return x.coef
	}
	return new(big.Int).Mul(x.coef, powerOfTen(x.exp-exp))
}

func digits(i *big.Int) int {
	if i.Sign() == 0 {
		return 1
	}
	return len(new(big.Int).Abs(i).String())
}

func powerOfTen(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// reduced has no trailing zeros in its coefficient; zero is 0 × 10^0.
func (x exact) reduced() exact {
	if x.coef.Sign() == 0 {
		return exact{class: classFinite, coef: new(big.Int)}
	}
	coef, exp := new(big.Int).Set(x.coef), x.exp
	ten, rest := big.NewInt(10), new(big.Int)
	for {
		next, r := new(big.Int).QuoRem(coef, ten, rest)
		if r.Sign() != 0 {
			return exact{class: classFinite, coef: coef, exp: exp}
		}
		coef, exp = next, exp+1
	}
}
