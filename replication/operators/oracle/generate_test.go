package oracle

import (
	"math/rand/v2"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// A document has fields whose names tell their kind, so that most random operations fit and do something: n, m numbers,
// s a string, b a bool, d a date, o a document, t an array of scalars, u an array of documents. Now and then a field is
// missing, null or of another kind.
type generator struct{ *rand.Rand }

func (g generator) one(of ...any) any { return of[g.IntN(len(of))] }

func (g generator) name(of ...string) string { return of[g.IntN(len(of))] }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g generator) number() any {
	if g.chance(15) {
		return float64(g.IntN(40)-20) + 0.5
	}
	return int32(g.IntN(12) - 4)
}

func (g generator) whole() any   { return int32(g.IntN(16) - 4) }
func (g generator) text() any    { return g.one("", "a", "b", "ab", "Ba", "xyz") }
func (g generator) date() any    { return bson.DateTime(1_600_000_000_000 + int64(g.IntN(5))*1000) }
func (g generator) boolean() any { return g.chance(50) }

func (g generator) scalar() any {
	switch g.IntN(10) {
	case 0:
		return nil
	case 1:
		return g.boolean()
	case 2, 3, 4:
		return g.text()
	}
	return g.number()
}

func (g generator) list(most int, of func() any) bson.A {
	a := bson.A{}
	for range g.IntN(most + 1) {
		a = append(a, of())
	}
	return a
}

func (g generator) kind(name string) any {
	switch name {
	case "n", "m":
		return g.number()
	case "s":
		return g.text()
	case "b":
		return g.boolean()
	case "d":
		return g.date()
	case "t":
		return g.list(5, g.element)
	case "u":
		return g.list(4, func() any { return g.fields(60, "n", "s", "t") })
	}
	return g.fields(75, "n", "o", "s")
}

func (g generator) element() any {
	if g.chance(25) {
		return g.text()
	}
	return g.number()
}

// fields makes a document of some of the names, in their order: mingo does not see the order of fields.
func (g generator) fields(percent int, names ...string) any {
	d := bson.D{}
	for _, name := range names {
		if !g.chance(percent) {
			continue
		}
		if name == "o" && g.chance(60) {
			d = append(d, bson.E{Key: "o", Value: bson.D{{Key: "n", Value: g.number()}}})
			continue
		}
		v := g.kind(name)
		if g.chance(4) {
			v = g.scalar()
		}
		d = append(d, bson.E{Key: name, Value: v})
	}
	return d
}

func (g generator) document() bson.D {
	return append(bson.D{{Key: "_id", Value: int32(1)}}, g.fields(85, "b", "d", "m", "n", "o", "s", "t", "u").(bson.D)...)
}

func one(key string, v any) bson.D { return bson.D{{Key: key, Value: v}} }

// filter is a random filter of up to two levels.
func (g generator) filter(depth int) bson.D {
	if depth > 0 && g.chance(20) {
		list := bson.A{}
		for range 1 + g.IntN(2) {
			list = append(list, g.filter(depth-1))
		}
		return one(g.name("$and", "$or", "$nor"), list)
	}
	d := bson.D{}
	for range 1 + g.IntN(2) {
		path, v := g.condition()
		if !has(d, path) {
			d = append(d, bson.E{Key: path, Value: v})
		}
	}
	return d
}

func has(d bson.D, key string) bool {
	for _, e := range d {
		if e.Key == key {
			return true
		}
	}
	return false
}

func (g generator) condition() (string, any) {
	switch g.IntN(10) {
	case 0, 1, 2:
		return g.name("n", "m", "o.n", "o.o.n", "u.n", "u.0.n"), g.test(g.number)
	case 3, 4:
		return g.name("s", "o.s", "u.s"), g.textTest()
	case 5, 6:
		return g.name("t", "t", "t", "t.0", "u.t"), g.test(g.element)
	case 7:
		return "t", g.arrayTest()
	case 8:
		return "u", one("$elemMatch", g.elementFilter())
	}
	return g.name("b", "d", "n", "s", "o", "t", "o.n", "o.o"), g.presence()
}

func (g generator) test(value func() any) any {
	switch g.IntN(9) {
	case 0, 1:
		return value()
	case 2:
		return one(g.name("$gt", "$gte", "$lt", "$lte"), value())
	case 3:
		return bson.D{{Key: "$gte", Value: value()}, {Key: "$lt", Value: value()}}
	case 4:
		return one(g.name("$ne", "$eq"), value())
	case 5:
		return one(g.name("$in", "$nin"), g.list(3, value))
	case 6:
		return one("$not", one(g.name("$gt", "$lte"), value()))
	case 7:
		return one("$mod", bson.A{int32(2 + g.IntN(3)), int32(g.IntN(2))})
	}
	return g.one(nil, one("$eq", nil), one("$ne", nil), one("$in", bson.A{nil, value()}))
}

func (g generator) textTest() any {
	switch g.IntN(3) {
	case 0:
		return g.test(g.text)
	case 1:
		return bson.D{{Key: "$regex", Value: g.one("^a", "b$", "a|x", "^.?$")}, {Key: "$options", Value: g.one("", "i")}}
	}
	return g.text()
}

func (g generator) arrayTest() any {
	switch g.IntN(4) {
	case 0:
		return one("$size", int32(g.IntN(5)))
	case 1:
		return one("$all", append(g.list(2, g.element), g.element()))
	case 2:
		return one("$elemMatch", bson.D{{Key: "$gte", Value: g.whole()}, {Key: "$lt", Value: g.whole()}})
	}
	return g.list(2, g.element)
}

func (g generator) elementFilter() bson.D {
	return g.one(one("n", g.number()), one("n", one("$gt", g.whole())), one("s", g.text()),
		bson.D{{Key: "n", Value: one("$lt", g.whole())}, {Key: "s", Value: one("$ne", g.text())}}).(bson.D)
}

func (g generator) presence() any {
	if g.chance(50) {
		return one("$exists", g.boolean())
	}
	return one("$type", g.one("string", "number", "bool", "object", "date", "null", bson.A{"string", "number"}))
}
