package oracle

import (
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// update is a random update with the filter and the array filters that go with it.
func (g generator) update() (filter, update bson.D, arrayFilters []bson.D) {
	filter = one("_id", int32(1))
	if g.chance(25) {
		return g.positional(filter)
	}
	for range 1 + g.IntN(3) {
		op, path, v := g.modifier()
		update = with(update, op, path, v)
	}
	return filter, update, nil
}

// with adds a field to an operator's document.
func with(update bson.D, op, path string, v any) bson.D {
	for i, e := range update {
		if e.Key == op {
			if !has(e.Value.(bson.D), path) {
				update[i].Value = append(e.Value.(bson.D), bson.E{Key: path, Value: v})
			}
			return update
		}
	}
	return append(update, bson.E{Key: op, Value: one(path, v)})
}

func (g generator) modifier() (op, path string, v any) {
	switch g.IntN(8) {
	case 0, 1:
		return g.name("$inc", "$mul"), g.name("n", "m", "o.n", "o.o.n", "u.0.n", "t.1", "new.n"), g.number()
	case 2:
		return g.name("$min", "$max"), g.name("n", "m", "s", "d", "o.n", "new", "t.0"), g.one(g.number(), g.text(), g.date())
	case 3:
		return "$set", g.name("n", "o", "o.n", "o.o.x", "t", "t.2", "t."+strconv.Itoa(g.IntN(7)), "u.1.n", "u.0", "x.y.z"), g.one(g.scalar(), g.kind("o"), g.kind("t"))
	case 4:
		return "$unset", g.name("n", "s", "o.n", "o", "t.0", "u.0.s", "nope", "nope.x"), ""
	case 5:
		return g.rarer()
	}
	return g.arrayModifier()
}

func (g generator) rarer() (op, path string, v any) {
	if g.chance(50) {
		return "$rename", g.name("n", "s", "o.n", "nope", "t"), g.name("r", "o.r", "m", "q.r")
	}
	return "$bit", g.name("n", "m", "o.n", "new"), one(g.name("and", "or", "xor"), int32(g.IntN(32)))
}

func (g generator) arrayModifier() (op, path string, v any) {
	path = g.name("t", "t", "t", "u.0.t", "newt")
	switch g.IntN(7) {
	case 0:
		return "$push", path, g.scalar()
	case 1, 2:
		return "$push", path, g.pushClauses(g.element, g.one(int32(1), int32(-1)))
	case 3:
		if g.chance(40) {
			return "$addToSet", "u", g.fields(80, "n", "s")
		}
		return "$addToSet", path, g.one(g.element(), one("$each", g.list(3, g.element)))
	case 4:
		return "$pop", path, g.one(int32(1), int32(-1))
	case 5:
		return g.pull(path)
	}
	return "$push", "u", g.pushClauses(func() any { return g.fields(90, "n", "s") }, one("n", g.one(int32(1), int32(-1))))
}

func (g generator) pushClauses(value func() any, order any) bson.D {
	d := bson.D{{Key: "$each", Value: append(g.list(2, value), value())}}
	if g.chance(40) {
		d = append(d, bson.E{Key: "$position", Value: int32(g.IntN(7) - 3)})
	}
	if g.chance(40) {
		d = append(d, bson.E{Key: "$sort", Value: order})
	}
	if g.chance(50) {
		d = append(d, bson.E{Key: "$slice", Value: int32(g.IntN(9) - 4)})
	}
	return d
}

func (g generator) pull(path string) (string, string, any) {
	switch g.IntN(5) {
	case 0:
		return "$pullAll", path, g.list(3, g.element)
	case 1, 2:
		return "$pull", "u", g.elementFilter()
	case 3:
		return "$pull", path, g.one(one("$gte", g.whole()), one("$in", g.list(3, g.element)), one("$ne", g.element()), one("$lt", "b"))
	}
	return "$pull", path, g.element()
}

// positional updates go by $, $[] or $[e].
func (g generator) positional(filter bson.D) (bson.D, bson.D, []bson.D) {
	switch g.IntN(5) {
	case 0:
		return append(filter, bson.E{Key: "t", Value: g.one(g.element(), one("$gt", g.whole()), one("$in", g.list(3, g.element)))}),
			one(g.name("$set", "$inc", "$min"), one("t.$", g.whole())), nil
	case 1:
		condition := bson.E{Key: "u.n", Value: g.number()}
		if g.chance(50) {
			condition = bson.E{Key: "u", Value: one("$elemMatch", g.elementFilter())}
		}
		return append(filter, condition), one(g.name("$set", "$inc", "$mul"), one("u.$.n", g.number())), nil
	case 2:
		return filter, one(g.name("$inc", "$mul", "$set", "$max"), one(g.name("t.$[]", "u.$[].n", "u.0.t.$[]"), g.number())), nil
	case 3:
		return filter, one(g.name("$set", "$inc", "$unset"), one("t.$[e]", g.number())), []bson.D{one("e", g.one(g.element(), one("$gt", g.whole()), one("$in", g.list(3, g.element))))}
	}
	return filter, one(g.name("$inc", "$set", "$mul"), one("u.$[e].n", g.number())),
		[]bson.D{g.one(one("e.n", one("$gte", g.whole())), one("e.s", g.text()), one("e.t", g.number())).(bson.D)}
}

// pipeline is a random pipeline update on fields of fitting kinds.
func (g generator) pipeline() bson.A {
	out := bson.A{}
	for range 1 + g.IntN(2) {
		switch g.IntN(6) {
		case 0:
			out = append(out, one("$unset", g.name("n", "o.n", "s", "u.n", "nope")))
		case 1:
			out = append(out, one("$replaceWith", one("$mergeObjects", bson.A{"$$ROOT", one("k", g.expression(2))})))
		case 2:
			out = append(out, one("$project", bson.D{{Key: g.name("n", "s", "t"), Value: int32(1)}, {Key: "k", Value: g.expression(2)}}))
		default:
			out = append(out, one("$set", one(g.name("n", "k", "o.k", "x.y"), g.expression(2))))
		}
	}
	return out
}

func (g generator) expression(depth int) any {
	if depth == 0 {
		return g.one("$n", "$m", "$o.n", g.whole(), one("$literal", g.number()))
	}
	sub := func() any { return g.expression(depth - 1) }
	switch g.IntN(12) {
	case 0, 1:
		return one(g.name("$add", "$multiply"), bson.A{sub(), sub()})
	case 2:
		return one("$subtract", bson.A{sub(), sub()})
	case 3:
		return one("$cond", bson.A{g.predicate(), sub(), sub()})
	case 4:
		return one("$ifNull", bson.A{sub(), int32(0)})
	case 5:
		return one("$concat", bson.A{"$s", g.text()})
	case 6:
		return one("$filter", bson.D{{Key: "input", Value: "$t"}, {Key: "as", Value: "e"}, {Key: "cond", Value: one("$and", bson.A{one("$isNumber", "$$e"), one("$gt", bson.A{"$$e", g.whole()})})}})
	case 7:
		return one("$map", bson.D{{Key: "input", Value: "$u"}, {Key: "as", Value: "e"}, {Key: "in", Value: one("$ifNull", bson.A{"$$e.n", int32(7)})}})
	case 8:
		return one("$reduce", bson.D{{Key: "input", Value: g.list(4, g.number)}, {Key: "initialValue", Value: int32(0)}, {Key: "in", Value: one("$add", bson.A{"$$value", "$$this"})}})
	case 9:
		return one(g.name("$size", "$reverseArray"), one("$ifNull", bson.A{"$t", bson.A{}}))
	case 10:
		return one("$arrayElemAt", bson.A{one("$concatArrays", bson.A{"$t", bson.A{g.whole()}}), int32(g.IntN(5) - 2)})
	}
	return g.one(one("$toString", "$n"), one("$isArray", "$t"), one("$toUpper", one("$ifNull", bson.A{"$s", "q"})), one("$let", bson.D{{Key: "vars", Value: one("v", "$n")}, {Key: "in", Value: one("$eq", bson.A{"$$v", "$m"})}}))
}

func (g generator) predicate() any {
	switch g.IntN(4) {
	case 0:
		return one("$not", bson.A{g.comparison()})
	case 1:
		return one(g.name("$and", "$or"), bson.A{g.comparison(), g.comparison()})
	case 2:
		return one("$in", bson.A{g.one("$n", "$s", g.whole()), one("$ifNull", bson.A{"$t", bson.A{}})})
	}
	return g.comparison()
}

func (g generator) comparison() any {
	return one(g.name("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), bson.A{g.one("$n", "$o.n"), g.one("$m", g.number())})
}

// projection is for find: inclusion, exclusion, $slice, $elemMatch.
func (g generator) projection() bson.D {
	keep := int32(g.IntN(2))
	switch g.IntN(5) {
	case 0:
		return bson.D{{Key: "n", Value: int32(1)}, {Key: "t", Value: one("$slice", g.one(int32(g.IntN(7)-3), bson.A{int32(g.IntN(5) - 2), int32(1 + g.IntN(2))}))}}
	case 1:
		return one("u", one("$elemMatch", g.elementFilter()))
	case 2:
		return bson.D{{Key: "_id", Value: int32(0)}, {Key: g.name("n", "o.n", "u.n"), Value: keep}, {Key: "s", Value: keep}}
	}
	return bson.D{{Key: g.name("n", "o.n", "u.s", "o.o.n"), Value: keep}, {Key: g.name("s", "t", "d"), Value: keep}}
}
