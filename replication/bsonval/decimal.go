package bsonval

import (
	"math"
	"math/big"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// precision of Decimal128: significant digits of the coefficient.
const precision = 34

// The special decimals; the driver parses these texts.
const (
	textNaN              = "NaN"
	textInfinity         = "Infinity"
	textNegativeInfinity = "-Infinity"
)

// ToDecimal is a number as Decimal128. A float64 is taken with 15 significant digits, as the server does: 0.1 becomes
// 0.100000000000000, not the 55 digits of its binary value.
func ToDecimal(v any) bson.Decimal128 {
	switch x := v.(type) {
	case bson.Decimal128:
		return x
	case float64:
		return decimalOfFloat(x)
	}
	return decimal(exactOf(v))
}

func decimalOfFloat(f float64) bson.Decimal128 {
	if e := exactOfFloat(f); e.class != classFinite {
		return decimal(e)
	}
	d, err := bson.ParseDecimal128(strconv.FormatFloat(f, 'e', 14, 64))
	if err != nil { // a finite float64 is always in range
		return special(textNaN)
	}
	return d
}

// operand is a number ready for decimal arithmetic.
func operand(v any) exact {
	if f, ok := v.(float64); ok {
		return exactOfDecimal(decimalOfFloat(f))
	}
	return exactOf(v)
}

func special(text string) bson.Decimal128 {
	d, _ := bson.ParseDecimal128(text) // one of three constants
	return d
}

// decimal rounds to 34 digits, half to even; what is beyond the exponent's range becomes infinity or zero.
func decimal(x exact) bson.Decimal128 {
	switch x.class {
	case classNaN:
		return special(textNaN)
	case classInfinity:
		return special(textInfinity)
	case classNegativeInfinity:
		return special(textNegativeInfinity)
	}
	x = x.rounded(max(digits(x.coef)-precision, bson.MinDecimal128Exp-x.exp))
	d, ok := bson.ParseDecimal128FromBigInt(new(big.Int).Set(x.coef), x.exp)
	switch {
	case ok:
		return d
	case x.coef.Sign() < 0:
		return special(textNegativeInfinity)
	}
	return special(textInfinity)
}

// rounded drops the last n digits, half to even.
func (x exact) rounded(n int) exact {
	if n <= 0 {
		return x
	}
	unit := powerOfTen(n)
	q, r := new(big.Int).QuoRem(x.coef, unit, new(big.Int))
	twice := r.Abs(r).Lsh(r, 1)
	if c := twice.Cmp(unit); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(int64(x.coef.Sign())))
	}
	out := exact{class: classFinite, coef: q, exp: x.exp + n}
	if digits(q) > precision { // 99…9 became 100…0
		return out.rounded(1)
	}
	return out
}

func (x exact) sign() int {
	switch x.class {
	case classInfinity:
		return 1
	case classNegativeInfinity:
		return -1
	}
	return x.coef.Sign()
}

func infinite(sign int) exact {
	if sign < 0 {
		return exact{class: classNegativeInfinity}
	}
	return exact{class: classInfinity}
}

func addExact(a, b exact) exact {
	switch {
	case a.class == classNaN || b.class == classNaN:
		return exact{class: classNaN}
	case a.class != classFinite && b.class != classFinite && a.class != b.class:
		return exact{class: classNaN}
	case a.class != classFinite:
		return a
	case b.class != classFinite:
		return b
	}
	low := min(a.exp, b.exp)
	return exact{class: classFinite, coef: new(big.Int).Add(a.scaledTo(low), b.scaledTo(low)), exp: low}
}

func negExact(x exact) exact {
	switch x.class {
	case classNaN:
		return x
	case classFinite:
		return exact{class: classFinite, coef: new(big.Int).Neg(x.coef), exp: x.exp}
	}
	return infinite(-x.sign())
}

func mulExact(a, b exact) exact {
	switch {
	case a.class == classNaN || b.class == classNaN:
		return exact{class: classNaN}
	case a.class == classFinite && b.class == classFinite:
		return exact{class: classFinite, coef: new(big.Int).Mul(a.coef, b.coef), exp: a.exp + b.exp}
	case a.sign() == 0 || b.sign() == 0:
		return exact{class: classNaN}
	}
	return infinite(a.sign() * b.sign())
}

// divExact divides with two digits more than fit, so that one rounding is enough; an exact quotient loses its trailing
// zeros. The divisor is not zero.
func divExact(a, b exact) exact {
	switch {
	case a.class == classNaN || b.class == classNaN || a.class != classFinite && b.class != classFinite:
		return exact{class: classNaN}
	case a.class != classFinite:
		return infinite(a.sign() * b.sign())
	case b.class != classFinite:
		return exact{class: classFinite, coef: new(big.Int)}
	}
	shift := max(0, precision+2+digits(b.coef)-digits(a.coef))
	q, r := new(big.Int).QuoRem(new(big.Int).Mul(a.coef, powerOfTen(shift)), b.coef, new(big.Int))
	out := exact{class: classFinite, coef: q, exp: a.exp - b.exp - shift}
	if r.Sign() == 0 {
		return out.reduced()
	}
	// A sticky digit keeps an inexact quotient from looking like a tie.
	q.Mul(q, big.NewInt(10)).Add(q, big.NewInt(int64(a.sign()*b.sign())))
	return exact{class: classFinite, coef: q, exp: out.exp - 1}
}

// remExact is the remainder that has the dividend's sign. The divisor is finite and not zero, the dividend finite.
func remExact(a, b exact) exact {
	low := min(a.exp, b.exp)
	return exact{class: classFinite, coef: new(big.Int).Rem(a.scaledTo(low), b.scaledTo(low)), exp: low}
}

// nearestFloat is the float64 nearest to x, which is finite.
func (x exact) nearestFloat() float64 {
	f, err := strconv.ParseFloat(x.coef.String()+"e"+strconv.Itoa(x.exp), 64)
	if err != nil { // out of range: infinity of the right sign
		return math.Inf(x.coef.Sign())
	}
	return f
}
