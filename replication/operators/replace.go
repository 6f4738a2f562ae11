package operators

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// checkReplacement refuses names at the top that would read as operators.
func checkReplacement(d bson.D) error {
	for _, e := range d {
		if strings.HasPrefix(e.Key, "$") {
			return bsonval.Errorf(bsonval.DollarPrefixedField, "The dollar ($) prefixed field '%s' in '%s' is not valid for storage.", e.Key, e.Key)
		}
	}
	return nil
}

// replace makes a document of the old _id and the new fields. op names what asked for it in the effects.
func replace(before, with bson.D, op string) (bson.D, []Effect, error) {
	after := with
	if i := bsonval.Find(before, "_id"); i >= 0 && bsonval.Find(with, "_id") < 0 {
		after = append(bson.D{before[i]}, with...)
	}
	var d differ
	d.op = op
	d.documents(nil, before, after)
	return after, d.effects, nil
}

// differ turns two documents into the effects that make the second of the first.
type differ struct {
	op      string
	effects []Effect
}

func (d *differ) emit(kind Kind, path []string, v any) {
	d.effects = append(d.effects, Effect{Kind: kind, Op: d.op, Path: path, Value: v, Coarse: true})
}

func (d *differ) documents(path []string, before, after bson.D) {
	for _, e := range before {
		if bsonval.Find(after, e.Key) < 0 {
			d.emit(Unset, extend(path, e.Key), nil)
		}
	}
	for _, e := range after {
		was := bsonval.Field(before, e.Key)
		if !bsonval.Identical(was, e.Value) {
			d.values(extend(path, e.Key), was, e.Value)
		}
	}
}

// values goes into documents as long as single changes leave their fields in the right order: inside of a document
// order is part of the value.
func (d *differ) values(path []string, before, after any) {
	x, ok1 := before.(bson.D)
	y, ok2 := after.(bson.D)
	if ok1 && ok2 && orderKept(x, y) {
		d.documents(path, x, y)
		return
	}
	d.emit(Set, path, after)
}

// orderKept says whether after's fields are those of before, without some, then new ones.
func orderKept(before, after bson.D) bool {
	last, fresh := -1, false
	for i, e := range after {
		if bsonval.Find(after[:i], e.Key) >= 0 {
			return false // a name twice: no path leads to the second
		}
		at := bsonval.Find(before, e.Key)
		if at < 0 {
			fresh = true
			continue
		}
		if fresh || at < last {
			return false
		}
		last = at
	}
	return !slices.ContainsFunc(before, func(e bson.E) bool { return e.Key == "" || strings.Contains(e.Key, ".") })
}
