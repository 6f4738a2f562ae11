package codec

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func e(k string, v any) bson.E { return bson.E{Key: k, Value: v} }

// every has one value of each type.
func every() bson.D {
	d := bson.D{e("double", 1.5), e("", "text"), e("doc", bson.D{e("a", int32(1)), e("b", bson.D{})}),
		e("array", bson.A{int32(1), "x", bson.A{nil, bson.D{e("deep", true)}}, bson.A{}}), e("binary", bson.Binary{Subtype: 4, Data: []byte{1, 2}}),
		e("old", bson.Binary{Subtype: 2, Data: []byte{9}}), e("nothing", bson.Binary{Data: []byte{}}),
		e("undefined", bson.Undefined{}), e("id", bson.ObjectID{1, 2, 3}), e("true", true), e("date", bson.DateTime(-5)), e("null", nil),
		e("regex", bson.Regex{Pattern: "^a", Options: "i"}), e("pointer", bson.DBPointer{DB: "d", Pointer: bson.ObjectID{7}}),
		e("code", bson.JavaScript("f()")), e("symbol", bson.Symbol("s")), e("scoped", bson.CodeWithScope{Code: "g()", Scope: bson.D{e("x", int64(1))}}),
		e("int32", int32(math.MinInt32)), e("timestamp", bson.Timestamp{T: 1, I: 2}), e("int64", int64(math.MaxInt64)),
		e("decimal", bson.NewDecimal128(1, 2)), e("min", bson.MinKey{}), e("max", bson.MaxKey{}), e("_id", int32(1)), e("$inc", "twice")}
	return append(d, e("again", append(bson.D{}, d...)))
}

// agree holds that both codecs read the same from raw and write the same of it.
func agree(t *testing.T, raw []byte) {
	t.Helper()
	var want bson.D
	theirs := bson.Unmarshal(raw, &want)
	got, err := Decode(raw)
	if err != nil {
		if theirs == nil && bson.Raw(raw).Validate() == nil {
			t.Fatalf("refused what the driver reads as %v", want)
		}
		return
	}
	if theirs != nil {
		return // the driver also refuses what is no UTF-8, and the like
	}
	if !reflect.DeepEqual(got, want) && !hasNaN(want) {
		for i := range min(len(got), len(want)) {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("field %d: decoded %#v, the driver %#v", i, got[i], want[i])
			}
		}
		t.Fatalf("decoded %d fields, the driver %d", len(got), len(want))
	}
	ours, err := Encode(got)
	if err != nil {
		t.Fatal(err)
	}
	if driver, err := bson.Marshal(want); err != nil || !bytes.Equal(ours, driver) {
		t.Fatalf("encoded\n%x\nthe driver\n%x, %v", ours, driver, err)
	}
}

// hasNaN: a NaN differs from itself, so DeepEqual can't be asked.
func hasNaN(v any) bool {
	switch v := v.(type) {
	case float64:
		return math.IsNaN(v)
	case bson.D:
		for _, f := range v {
			if hasNaN(f.Value) {
				return true
			}
		}
	case bson.A:
		for _, x := range v {
			if hasNaN(x) {
				return true
			}
		}
	case bson.CodeWithScope:
		return hasNaN(v.Scope)
	}
	return false
}

func TestAgreesWithTheDriver(t *testing.T) {
	raw, err := bson.Marshal(every())
	if err != nil {
		t.Fatal(err)
	}
	agree(t, raw)
	if d, err := Decode(raw); err != nil || len(d) != len(every()) {
		t.Errorf("%d fields, %v", len(d), err)
	}
	for cut := range raw {
		if _, err := Decode(raw[:cut]); err == nil {
			t.Fatalf("%d of %d bytes were read as a document", cut, len(raw))
		}
	}
}

func TestEncodesRaw(t *testing.T) {
	raw, _ := Encode(bson.D{e("a", int32(1))})
	got, err := Encode(bson.D{e("batch", bson.A{raw}), e("go", 7)})
	want, _ := bson.Marshal(bson.D{e("batch", bson.A{bson.D{e("a", int32(1))}}), e("go", 7)})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
}

func FuzzDecode(f *testing.F) {
	raw, err := bson.Marshal(every())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(raw))
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) { agree(t, raw) })
}

func BenchmarkDecode(b *testing.B) {
	raw, _ := bson.Marshal(bson.D{e("update", "c"), e("updates", bson.A{bson.D{e("q", bson.D{e("_id", int32(7))}),
		e("u", bson.D{e("$inc", bson.D{e("v", int64(1))})})}}), e("$db", "d")})
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("driver", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var d bson.D
			if err := bson.Unmarshal(raw, &d); err != nil {
				b.Fatal(err)
			}
		}
	})
}
