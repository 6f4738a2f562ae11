package operators

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// InsertDocument is what an upsert that matched nothing starts from: the fields for which the filter asks equality, at
// the top, in $and, in an $or of one, in $all. For a replacement only _id counts. The update is then applied to it with
// ApplyInput.Insert; an _id that is still missing is for the caller to make.
func (f *Filter) InsertDocument(replacement bool) (bson.D, error) {
	var found []equal
	collectEqualities(f.root, &found)
	out := bson.D{}
	for i, e := range found {
		if replacement && e.path[0] != "_id" {
			continue
		}
		for _, other := range found[:i] {
			if err := notTwice(other.path, e.path); err != nil {
				return nil, err
			}
		}
		if err := checkUpdatePath(strings.Join(e.path, "."), e.path); err != nil {
			return nil, err
		}
		var err error
		if out, err = bsonval.Set(out, e.path, e.value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// equal is one equality of a filter.
type equal struct {
	path  []string
	value any
}

func collectEqualities(n node, out *[]equal) {
	switch x := n.(type) {
	case field:
		if c, ok := x.test.(comparison); ok && c.op == "$eq" {
			*out = append(*out, equal{x.path, c.with})
		}
	case allOf:
		for _, child := range x {
			collectEqualities(child, out)
		}
	case anyOf:
		if len(x) == 1 {
			collectEqualities(x[0], out)
		}
	}
}

func notTwice(a, b []string) error {
	x, y := strings.Join(a, "."), strings.Join(b, ".")
	switch {
	case x == y:
		return bsonval.Errorf(bsonval.NotSingleValueField, "cannot infer query fields to set, path '%s' is matched twice", x)
	case strings.HasPrefix(y, x+"."), strings.HasPrefix(x, y+"."):
		return bsonval.Errorf(bsonval.NotSingleValueField, "cannot infer query fields to set, both paths '%s' and '%s' are matched", x, y)
	}
	return nil
}
