package bsonval

import (
	"bytes"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dec(s string) bson.Decimal128 {
	d, err := bson.ParseDecimal128(s)
	if err != nil {
		panic(err)
	}
	return d
}

// ascending is MongoDB's order, one line per step; values on one line are equal.
var ascending = [][]any{
	{bson.MinKey{}},
	{Missing{}, bson.Undefined{}},
	{nil},
	{math.NaN(), dec("NaN")},
	{math.Inf(-1), dec("-Infinity")},
	{dec("-1E+6000")},
	{int64(math.MinInt64), float64(math.MinInt64), dec("-9223372036854775808")},
	{int32(-1), -1.0, dec("-1.000")},
	{dec("-1E-6000")},
	{int32(0), int64(0), 0.0, math.Copysign(0, -1), dec("0"), dec("0E+10"), dec("-0")},
	{math.SmallestNonzeroFloat64},
	{dec("0.1")}, {0.1}, // the double nearest to a tenth is a little more
	{0.5, dec("0.5"), dec("0.50")},
	{int64(1<<53 + 1)}, {float64(1<<53 + 2), int64(1<<53 + 2)},
	{int64(math.MaxInt64), dec("9223372036854775807")}, {float64(1 << 63), dec("9223372036854775808")},
	{math.MaxFloat64}, {dec("1E+6000")}, {math.Inf(1), dec("Infinity")},
	{""}, {"a", bson.Symbol("a")}, {"a\x00"}, {"b"},
	{bson.D{}}, {bson.D{{Key: "b", Value: int32(1)}}, bson.D{{Key: "b", Value: 1.0}}}, {bson.D{{Key: "a", Value: "x"}}},
	{bson.A{}}, {bson.A{int32(1)}}, {bson.A{int32(1), int32(1)}}, {bson.A{int32(2)}},
	{bson.Binary{Data: []byte{9}}}, {bson.Binary{Data: []byte{9}, Subtype: 5}}, {bson.Binary{Data: []byte{1, 1}}},
	{bson.ObjectID{1}}, {bson.ObjectID{2}}, {false}, {true}, {bson.DateTime(-1)}, {bson.DateTime(1)},
	{bson.Timestamp{T: 1, I: 2}}, {bson.Timestamp{T: 1 << 31}},
	{bson.Regex{Pattern: "a"}}, {bson.Regex{Pattern: "a", Options: "i"}},
	{bson.DBPointer{DB: "z"}}, {bson.DBPointer{DB: "aa"}},
	{bson.JavaScript("x")}, {bson.CodeWithScope{Code: "x", Scope: bson.D{}}}, {bson.MaxKey{}},
}

func TestCompareAndCanonicalFollowMongosOrder(t *testing.T) {
	for i, left := range ascending {
		for j, right := range ascending {
			for _, a := range left {
				for _, b := range right {
					want := 0
					if i != j {
						want = map[bool]int{true: -1, false: 1}[i < j]
					}
					if got := Compare(a, b); got != want {
						t.Errorf("Compare(%T %v, %T %v) = %d, want %d", a, a, b, b, got, want)
					}
					if same := bytes.Equal(Canonical(a), Canonical(b)); same != (want == 0) {
						t.Errorf("Canonical(%T %v) and of %T %v: same %v, want %v", a, a, b, b, same, want == 0)
					}
				}
			}
		}
	}
}

func flat() (all []any) {
	for _, same := range ascending {
		all = append(all, same...)
	}
	return all
}

func random(r *rand.Rand, depth int) any {
	all := flat()
	switch n := r.IntN(12); {
	case n == 0 && depth > 0:
		d := bson.D{}
		for range r.IntN(3) {
			d = append(d, bson.E{Key: string(rune('a' + r.IntN(2))), Value: random(r, depth-1)})
		}
		return d
	case n == 1 && depth > 0:
		a := bson.A{}
		for range r.IntN(3) {
			a = append(a, random(r, depth-1))
		}
		return a
	case n == 2:
		return math.Float64frombits(r.Uint64())
	case n == 3:
		return bson.NewDecimal128(r.Uint64(), r.Uint64())
	case n == 4:
		return int64(r.Uint64())
	}
	return all[r.IntN(len(all))]
}

func TestRandomValuesAreOrderedAndCanonical(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 30_000 {
		a, b, c := random(r, 3), random(r, 3), random(r, 3)
		if Compare(a, b) != -Compare(b, a) || Compare(a, a) != 0 {
			t.Fatalf("not antisymmetric: %#v %#v", a, b)
		}
		if Compare(a, b) <= 0 && Compare(b, c) <= 0 && Compare(a, c) > 0 {
			t.Fatalf("not transitive: %#v %#v %#v", a, b, c)
		}
		if bytes.Equal(Canonical(a), Canonical(b)) != (Compare(a, b) == 0) {
			t.Fatalf("canonical forms disagree with Compare: %#v %#v", a, b)
		}
		if Identical(a, b) && Compare(a, b) != 0 || !Identical(a, Clone(a)) {
			t.Fatalf("identical but not equal, or not identical to its clone: %#v %#v", a, b)
		}
	}
}

func TestArithmeticPromotes(t *testing.T) {
	type op func(a, b any) (any, error)
	for _, c := range []struct {
		name string
		op   op
		a, b any
		want any
		err  error
	}{
		{"int", Add, int32(1), int32(2), int32(3), nil},
		{"int to long", Add, int32(math.MaxInt32), int32(1), int64(1 << 31), nil},
		{"int to long by product", Mul, int32(math.MinInt32), int32(-1), int64(1 << 31), nil},
		{"long stays long", Add, int64(1), int32(2), int64(3), nil},
		{"long overflow", Add, int64(math.MaxInt64), int32(1), int64(math.MaxInt64), ErrOverflow},
		{"long underflow", Sub, int64(math.MinInt64), int32(1), int64(math.MinInt64), ErrOverflow},
		{"long product overflow", Mul, int64(math.MaxInt64), int64(-2), int64(math.MinInt64), ErrOverflow},
		{"double", Add, int64(1), 0.5, 1.5, nil},
		{"decimal", Add, dec("0.1"), int32(1), dec("1.1"), nil},
		{"decimal keeps zeros", Mul, dec("1.10"), dec("2.0"), dec("2.200"), nil},
		{"decimal and double: 15 digits", Add, dec("1"), 0.1, dec("1.100000000000000"), nil},
		{"decimal rounds half even", Add, dec("9999999999999999999999999999999999"), dec("0.5"), dec("1.000000000000000000000000000000000E+34"), nil},
		{"decimal overflow", Mul, dec("9E+6144"), int32(10), dec("Infinity"), nil},
		{"decimal infinities", Add, dec("Infinity"), dec("-Infinity"), dec("NaN"), nil},
		{"text", Add, "1", int32(1), nil, ErrNotNumber},
		{"quotient", Div, int32(1), int32(4), 0.25, nil},
		{"decimal quotient", Div, dec("1"), int32(3), dec("0.3333333333333333333333333333333333"), nil},
		{"decimal exact quotient", Div, dec("1"), int32(4), dec("0.25"), nil},
		{"by zero", Div, int32(1), 0.0, nil, ErrZeroDivisor},
		{"remainder", Rem, int32(-7), int32(3), int32(-1), nil},
		{"remainder of the least", Rem, int64(math.MinInt64), int32(-1), int64(0), nil},
		{"double remainder", Rem, 5.5, int32(2), 1.5, nil},
		{"decimal remainder", Rem, dec("5.5"), int32(2), dec("1.5"), nil},
	} {
		got, err := c.op(c.a, c.b)
		if !errors.Is(err, c.err) || c.want != nil && !Identical(got, c.want) {
			t.Errorf("%s: %v of %v and %v: got %T %v, %v; want %v, %v", c.name, "result", c.a, c.b, got, got, err, c.want, c.err)
		}
	}
}

// TestIntegersAgainstBig compares the 64-bit arithmetic with one that cannot overflow.
func TestIntegersAgainstBig(t *testing.T) {
	edges := []int64{0, 1, -1, 2, -2, 3, math.MaxInt32, math.MinInt32, 1 << 32, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1, 3037000500}
	for name, op := range map[string]struct {
		ours func(a, b any) (any, error)
		big  func(z, x, y *big.Int) *big.Int
	}{"add": {Add, (*big.Int).Add}, "sub": {Sub, (*big.Int).Sub}, "mul": {Mul, (*big.Int).Mul}} {
		for _, x := range edges {
			for _, y := range edges {
				want := op.big(new(big.Int), big.NewInt(x), big.NewInt(y))
				got, err := op.ours(x, y)
				switch {
				case want.IsInt64() && (err != nil || got != want.Int64()),
					!want.IsInt64() && (!errors.Is(err, ErrOverflow) || (got.(int64) > 0) != (want.Sign() > 0)):
					t.Errorf("%s(%d, %d) = %v, %v; want %s", name, x, y, got, err, want)
				}
			}
		}
	}
}

func TestWholeNumbers(t *testing.T) {
	for _, c := range []struct {
		v      any
		whole  int64
		ok, ex bool
	}{
		{int32(3), 3, true, true}, {3.9, 3, true, false}, {-3.9, -3, true, false}, {3.0, 3, true, true}, {dec("3.00"), 3, true, true},
		{dec("3.7"), 3, true, false}, {dec("1E+2"), 100, true, true}, {dec("1E+30"), 0, false, false}, {dec("1E-6000"), 0, true, false},
		{1e300, 0, false, false}, {math.NaN(), 0, false, false}, {dec("NaN"), 0, false, false}, {"3", 0, false, false},
		{float64(math.MinInt64), math.MinInt64, true, true}, {float64(1 << 63), 0, false, false},
	} {
		i, ok := ToInt64(c.v)
		_, ex := ToExactInt64(c.v)
		if ok != c.ok || ok && i != c.whole || ex != c.ex {
			t.Errorf("%T %v: %d %v, exact %v; want %+v", c.v, c.v, i, ok, ex, c)
		}
	}
}

func doc(t testing.TB, json string) bson.D {
	t.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(json), false, &d); err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return d
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ name, before, path, value, after, code string }{
		{"field", `{"a":1}`, "a", `2`, `{"a":2}`, ""},
		{"new below new", `{}`, "a.b.c", `2`, `{"a":{"b":{"c":2}}}`, ""},
		{"element", `{"a":[1,2]}`, "a.1", `9`, `{"a":[1,9]}`, ""},
		{"beyond the end", `{"a":[1]}`, "a.3.b", `9`, `{"a":[1,null,null,{"b":9}]}`, ""},
		{"digits make fields in documents", `{}`, "a.0", `9`, `{"a":{"0":9}}`, ""},
		{"through a scalar", `{"a":1}`, "a.b", `9`, ``, "PathNotViable"},
		{"through null", `{"a":null}`, "a.b", `9`, ``, "PathNotViable"},
		{"name in an array", `{"a":[1]}`, "a.b", `9`, ``, "PathNotViable"},
		{"too far", `{"a":[1]}`, "a.99999999", `9`, ``, "BadValue"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := doc(t, c.before)
			kept := Clone(before)
			after, err := Set(before, SplitPath(c.path), doc(t, `{"v":`+c.value+`}`)[0].Value)
			if !Identical(before, kept) {
				t.Fatalf("the old document changed: %v", before)
			}
			if c.code != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.code) {
					t.Fatalf("got %v, want %s", err, c.code)
				}
				return
			}
			if err != nil || !Identical(after, doc(t, c.after)) {
				t.Fatalf("got %v, %v", after, err)
			}
			if !Identical(Get(after, SplitPath(c.path)), doc(t, `{"v":`+c.value+`}`)[0].Value) {
				t.Fatal("what was set is not there")
			}
		})
	}
}

func TestUnset(t *testing.T) {
	for _, c := range []struct{ before, path, after string }{
		{`{"a":1,"b":2}`, "a", `{"b":2}`},
		{`{"a":{"b":1,"c":2}}`, "a.b", `{"a":{"c":2}}`},
		{`{"a":[1,2]}`, "a.0", `{"a":[null,2]}`},
		{`{"a":[{"b":1},2]}`, "a.0.b", `{"a":[{},2]}`},
		{`{"a":1}`, "a.b", `{"a":1}`},
		{`{"a":[1]}`, "a.4", `{"a":[1]}`},
		{`{"a":[1]}`, "a.x", `{"a":[1]}`},
	} {
		before := doc(t, c.before)
		if got := Unset(before, SplitPath(c.path)); !Identical(got, doc(t, c.after)) || !Identical(before, doc(t, c.before)) {
			t.Errorf("%s without %s: %v", c.before, c.path, got)
		}
	}
}

func TestSizeIsThatOfTheBytes(t *testing.T) {
	long := bson.A{}
	for range 1234 {
		long = append(long, int32(1))
	}
	d := bson.D{{Key: "long", Value: long}, {Key: "old", Value: bson.Binary{Subtype: 2, Data: []byte("abc")}}}
	for i, v := range flat() {
		if _, missing := v.(Missing); !missing {
			d = append(d, bson.E{Key: strings.Repeat("k", i%7), Value: v})
		}
	}
	raw, err := bson.Marshal(d)
	if err != nil || Size(d) != len(raw) {
		t.Fatalf("size %d, marshalled %d, %v", Size(d), len(raw), err)
	}
	back, err := Decode(raw)
	if err != nil || !Identical(back, d) {
		t.Fatalf("came back as %v, %v", back, err)
	}
}

func TestLimits(t *testing.T) {
	deep := bson.D{}
	for range MaxDepth - 1 {
		deep = bson.D{{Key: "a", Value: deep}}
	}
	if err := CheckLimits(deep); err != nil {
		t.Fatalf("100 levels: %v", err)
	}
	if err := CheckLimits(bson.D{{Key: "a", Value: bson.A{deep}}}); err == nil {
		t.Fatal("102 levels pass")
	}
	if err := CheckLimits(bson.D{{Key: "a", Value: strings.Repeat("x", MaxDocumentSize)}}); err == nil {
		t.Fatal("more than 16 MiB pass")
	}
}

func TestNormalize(t *testing.T) {
	in := bson.D{{Key: "i", Value: 1}, {Key: "l", Value: 1 << 40}, {Key: "t", Value: time.UnixMilli(5)}, {Key: "b", Value: []byte{1}},
		{Key: "a", Value: []any{2, bson.Null{}}}}
	want := bson.D{{Key: "i", Value: int32(1)}, {Key: "l", Value: int64(1 << 40)}, {Key: "t", Value: bson.DateTime(5)},
		{Key: "b", Value: bson.Binary{Data: []byte{1}}}, {Key: "a", Value: bson.A{int32(2), nil}}}
	if got, err := Normalize(in); err != nil || !Identical(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := Normalize(bson.D{{Key: "m", Value: bson.A{map[string]any{}}}}); err == nil || err.Error() != "m: 0: a map[string]interface {} is not a BSON value" {
		t.Fatalf("got %v", err)
	}
}

// FuzzDecode holds what every decoded document must obey, whatever the bytes.
func FuzzDecode(f *testing.F) {
	for _, v := range flat() {
		if _, missing := v.(Missing); !missing {
			raw, err := bson.Marshal(bson.D{{Key: "v", Value: v}, {Key: "a", Value: bson.A{v}}})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := Decode(raw)
		if err != nil {
			return
		}
		if Compare(d, Clone(d)) != 0 || !bytes.Equal(Canonical(d), Canonical(Clone(d))) {
			t.Fatalf("%v differs from itself", d)
		}
		Size(d)
	})
}

func BenchmarkCompare(b *testing.B) {
	x := bson.D{{Key: "a", Value: int32(1)}, {Key: "b", Value: bson.A{int64(1), 2.0, "three"}}}
	y := Clone(x)
	for b.Loop() {
		Compare(x, y)
	}
}

func BenchmarkCanonical(b *testing.B) {
	x := bson.D{{Key: "a", Value: int32(1)}, {Key: "b", Value: bson.A{int64(1), 2.0, "three"}}}
	var buf []byte
	for b.Loop() {
		buf = AppendCanonical(buf[:0], x)
	}
}
