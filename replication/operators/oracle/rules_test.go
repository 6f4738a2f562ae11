package oracle

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// rule explains a kind of difference: where mingo is not MongoDB. The reference is the page of MongoDB's manual, or the
// server's own test, that says what MongoDB does.
type rule struct {
	name, why string
	holds     func(k kase, ours, mingo answer) bool
}

var rules = []rule{
	{"refused", "the server refuses the update as a whole, mingo leaves out the operator that can't be applied (manual: Update Operators)", skipped},
	{"through-null", "a path through null is error 28 in the server, mingo makes a document of the null (server: path_support_test)", throughNull},
	{"null-in-arrays", "null also means missing, below each document of an array too, but not below an empty one (manual: Query for Null or Missing Fields; server: null_query_semantics.js)", nullInArrays},
	{"type-in-arrays", "$type looks at an array's elements too (manual: $type, Arrays)", typeInArrays},
	{"arrays-in-arrays", "a condition looks at the elements of an array that lies in a document of an array (manual: Query an Array of Embedded Documents)", arraysInArrays},
	{"mod-of-others", "$mod cuts fractions and takes no text for a number (manual: $mod, Behavior)", modOfOthers},
	{"compare-types", "comparisons in expressions compare values of different types by BSON order, where missing is not null (manual: Comparison/Sort Order)", compareTypes},
	{"set-below-scalars", "$set in a pipeline makes a document of a scalar that a path goes through (manual: $addFields, Add Fields to an Embedded Document; server: document_source_add_fields_test)", setBelowScalars},
	{"empty-parents", "$set in a pipeline makes the documents on the way to a field even if the field's value is missing (server: projection_node.cpp, applyExpressionsToValue)", emptyParents},
	{"rename-loses", "$rename to below a scalar is error 28 in the server, in mingo the value is gone (manual: $rename; server: rename_node_test)", renameLoses},
	{"refused-elements", "the server refuses $[] as a whole if one element does not fit, mingo changes the others (manual: $[])", refusedElements},
	{"push-to-nothing", "$sort and $slice apply to a new array too (manual: $push)", pushToNothing},
	{"sort-missing", "$sort of a $push takes a missing field for null and keeps the order of equals, mingo puts it before null (server: pattern_cmp_test)", sortMissing},
	{"set-collapse", "$addToSet leaves duplicates that are there (manual: $addToSet, Behavior)", setCollapse},
}

// explain is the name of the first rule that holds, "" for none.
func explain(k kase, ours, mingo answer) string {
	for _, r := range rules {
		if r.holds(k, ours, mingo) {
			return r.name
		}
	}
	return ""
}

// fields are the single operators of an update.
func (k kase) fields() (all []bson.D) {
	update, _ := k.update.(bson.D)
	if k.kind != "update" {
		return nil
	}
	for _, op := range update {
		for _, f := range op.Value.(bson.D) {
			all = append(all, one(op.Key, one(f.Key, f.Value)))
		}
	}
	return all
}

// without is the case without the operators for which out holds, and whether that leaves any.
func (k kase) without(out func(op, path string, v any) bool) (kase, bool) {
	var rest bson.D
	for _, f := range k.fields() {
		path := f[0].Value.(bson.D)[0]
		if !out(f[0].Key, path.Key, path.Value) {
			rest = with(rest, f[0].Key, path.Key, path.Value)
		}
	}
	k.update = rest
	return k, rest != nil
}

// unrefused is the case without the operators that we refuse on their own.
func (k kase) unrefused() (rest kase, some bool) {
	return k.without(func(op, path string, v any) bool {
		single := k
		single.update = one(op, one(path, v))
		return single.ours().refused != ""
	})
}

// afterUnrefused is our answer without what we refuse.
func (k kase) afterUnrefused(ours answer) answer {
	if ours.refused == "" {
		return ours
	}
	rest, some := k.unrefused()
	if !some {
		return document(k.doc)
	}
	return rest.ours()
}

// skipped: without what we refuse, the two agree.
func skipped(k kase, ours, mingo answer) bool {
	return ours.refused != "" && k.fields() != nil && k.afterUnrefused(ours).same(mingo)
}

func refusedElements(k kase, ours, mingo answer) bool {
	return ours.refused != "" && agreeBut(k, ours, mingo, func(_, path string, _ any) bool { return strings.Contains(path, "$[") })
}

func arraysInArrays(k kase, _, _ answer) bool {
	return k.holdsFor(func(path []string, _ any) bool {
		if len(path) < 2 || path[len(path)-1] != "t" {
			return false
		}
		_, outer := bsonval.Get(k.doc, path[:len(path)-1]).(bson.A)
		return outer
	})
}

func modOfOthers(k kase, _, _ answer) bool {
	return k.holdsFor(func(path []string, v any) bool {
		found := bsonval.Get(k.doc, path)
		if throughArray(k.doc, path) {
			found = bsonval.Get(k.doc, path[:1])
		}
		return mentions(v, func(key string, _ any) bool { return key == "$mod" }) && mentions(found, func(_ string, v any) bool {
			_, whole := bsonval.ToExactInt64(v)
			return !whole
		})
	})
}

// compareTypes: an expression compares fields that are not both numbers, or may not be any more in a second stage.
func compareTypes(k kase, _, _ answer) bool {
	pipeline, ok := k.update.(bson.A)
	return ok && mentions(pipeline, func(key string, v any) bool {
		operands, ok := v.(bson.A)
		switch key {
		case "$eq", "$ne", "$gt", "$gte", "$lt", "$lte":
			return ok && (len(pipeline) > 1 || slices.ContainsFunc(operands, func(o any) bool { return !isNumeric(k.doc, o) }))
		}
		return false
	})
}

// setBelowScalars: a $set goes through what is neither a document nor missing, and the rest agrees.
func setBelowScalars(k kase, ours, mingo answer) bool {
	pipeline, _ := k.update.(bson.A)
	touched := map[string]bool{}
	for _, stage := range pipeline {
		fields, _ := bsonval.Field(stage.(bson.D), "$set").(bson.D)
		for _, f := range fields {
			path := bsonval.SplitPath(f.Key)
			switch bsonval.Field(k.doc, path[0]).(type) {
			case bson.D, bsonval.Missing:
			default:
				touched[path[0]] = len(path) > 1
			}
		}
	}
	return len(touched) > 0 && strip(ours.doc, touched) == strip(mingo.doc, touched)
}

func isNumeric(d bson.D, operand any) bool {
	if path, ok := operand.(string); ok {
		operand = bsonval.Get(d, bsonval.SplitPath(strings.TrimPrefix(path, "$")))
	}
	return bsonval.IsNumber(operand)
}

// throughNull: the two agree but for what operators touch whose paths go through null.
func throughNull(k kase, ours, mingo answer) bool {
	return agreeBut(k, ours, mingo, func(op, path string, v any) bool {
		single := k
		single.update = one(op, one(path, v))
		got := single.ours().refused
		return strings.HasPrefix(got, "PathNotViable") && strings.HasSuffix(got, "of type null")
	})
}

// conditions are the single conditions on paths of a filter, also those inside of $and, $or and $nor.
func conditions(d bson.D) (all []bson.E) {
	for _, e := range d {
		list, logical := e.Value.(bson.A)
		if !logical || !strings.HasPrefix(e.Key, "$") {
			all = append(all, e)
			continue
		}
		for _, v := range list {
			all = append(all, conditions(v.(bson.D))...)
		}
	}
	return all
}

// holdsFor says whether one of the filter's conditions is as asked.
func (k kase) holdsFor(test func(path []string, v any) bool) bool {
	return slices.ContainsFunc(conditions(k.filter), func(e bson.E) bool { return test(bsonval.SplitPath(e.Key), e.Value) })
}

// throughArray says whether a path goes through an array of the document, not counting its end.
func throughArray(d bson.D, path []string) bool {
	for i := 1; i < len(path); i++ {
		if _, ok := bsonval.Get(d, path[:i]).(bson.A); ok {
			return true
		}
	}
	return false
}

// mentions says whether a value is, or holds somewhere, what test asks for.
func mentions(v any, test func(key string, v any) bool) bool {
	switch x := v.(type) {
	case bson.D:
		return slices.ContainsFunc(x, func(e bson.E) bool { return test(e.Key, e.Value) || mentions(e.Value, test) })
	case bson.A:
		return slices.ContainsFunc(x, func(e any) bool { return test("", e) || mentions(e, test) })
	}
	return test("", v)
}

func mentionsNull(v any) bool { return mentions(v, func(_ string, v any) bool { return v == nil }) }

func nullInArrays(k kase, _, _ answer) bool {
	return k.holdsFor(func(path []string, v any) bool { return throughArray(k.doc, path) && mentionsNull(v) })
}

func typeInArrays(k kase, _, _ answer) bool {
	return k.holdsFor(func(path []string, v any) bool {
		_, array := bsonval.Get(k.doc, path).(bson.A)
		return array && mentions(v, func(key string, _ any) bool { return key == "$type" })
	})
}

func isPushToNothing(k kase, op, path string, v any) bool {
	_, missing := bsonval.Get(k.doc, bsonval.SplitPath(path)).(bsonval.Missing)
	return op == "$push" && missing && mentions(v, func(key string, _ any) bool { return key == "$sort" || key == "$slice" })
}

func isSetCollapse(k kase, op, path string, v any) bool {
	a, _ := bsonval.Get(k.doc, bsonval.SplitPath(path)).(bson.A)
	d, _ := v.(bson.D)
	each, _ := bsonval.Field(d, "$each").(bson.A)
	return op == "$addToSet" && (duplicates(a) || duplicates(each))
}

// pushToNothing: the two agree but for what pushes with clauses onto a missing field touch; one $addToSet that
// collapses may be beside it.
func pushToNothing(k kase, ours, mingo answer) bool {
	return agreeBut(k, ours, mingo, func(op, path string, v any) bool { return isPushToNothing(k, op, path, v) }) ||
		agreeBut(k, ours, mingo, func(op, path string, v any) bool {
			return isPushToNothing(k, op, path, v) || isSetCollapse(k, op, path, v)
		}) &&
			slices.ContainsFunc(k.fields(), func(f bson.D) bool {
				e := f[0].Value.(bson.D)[0]
				return isPushToNothing(k, f[0].Key, e.Key, e.Value)
			})
}

// sortMissing: a $push sorts by a field that is null in one element and missing in another.
func sortMissing(k kase, ours, mingo answer) bool {
	return agreeBut(k, ours, mingo, func(op, path string, v any) bool {
		d, _ := v.(bson.D)
		each, _ := bsonval.Field(d, "$each").(bson.A)
		array, _ := bsonval.Get(k.doc, bsonval.SplitPath(path)).(bson.A)
		null, missing := false, false
		for _, e := range slices.Concat(array, each) {
			element, _ := e.(bson.D)
			switch bsonval.Field(element, "n").(type) {
			case nil:
				null = true
			case bsonval.Missing:
				missing = true
			}
		}
		_, byField := bsonval.Field(d, "$sort").(bson.D)
		return op == "$push" && byField && null && missing
	})
}

func setCollapse(k kase, ours, mingo answer) bool {
	return agreeBut(k, ours, mingo, func(op, path string, v any) bool { return isSetCollapse(k, op, path, v) })
}

// renameLoses: a $rename leads below a scalar, and the rest agrees.
func renameLoses(k kase, ours, mingo answer) bool {
	return strings.HasPrefix(ours.refused, "PathNotViable") && agreeBut(k, ours, mingo, func(op, _ string, v any) bool {
		to, _ := v.(string)
		path := bsonval.SplitPath(to)
		_, document := bsonval.Get(k.doc, path[:1]).(bson.D)
		return op == "$rename" && len(path) > 1 && !document
	})
}

// emptyParents: without the empty documents that only we have, the two agree.
func emptyParents(k kase, ours, mingo answer) bool {
	if _, pipeline := k.update.(bson.A); !pipeline || ours.refused != "" || mingo.refused != "" {
		return false
	}
	rest := bson.D{}
	for _, e := range ours.doc {
		d, ok := e.Value.(bson.D)
		if !ok || len(d) > 0 || !mentions(k.update, func(key string, _ any) bool { return strings.HasPrefix(key, e.Key+".") }) {
			rest = append(rest, e)
		}
	}
	return len(rest) < len(ours.doc) && canonical(rest) == mingo.text
}

func duplicates(a bson.A) bool {
	for i, v := range a {
		if slices.ContainsFunc(a[:i], func(e any) bool { return bsonval.Equal(e, v) }) {
			return true
		}
	}
	return false
}

// agreeBut says whether an update has operators for which odd holds, and the documents differ in nothing but the
// top-level fields that those touch.
func agreeBut(k kase, ours, mingo answer, odd func(op, path string, v any) bool) bool {
	touched := map[string]bool{}
	k.without(func(op, path string, v any) bool {
		if odd(op, path, v) {
			touched[bsonval.SplitPath(path)[0]] = true
			if to, ok := v.(string); ok && op == "$rename" {
				touched[bsonval.SplitPath(to)[0]] = true
			}
		}
		return false
	})
	ours = k.afterUnrefused(ours)
	if len(touched) == 0 || ours.refused != "" || mingo.refused != "" {
		return false
	}
	return strip(ours.doc, touched) == strip(mingo.doc, touched)
}

func strip(d bson.D, fields map[string]bool) string {
	rest := bson.D{}
	for _, e := range d {
		if !fields[e.Key] {
			rest = append(rest, e)
		}
	}
	return canonical(rest)
}
