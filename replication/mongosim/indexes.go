package mongosim

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

func createIndexes(_ context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	wanted, err := r.args().documents("indexes")
	if err != nil {
		return nil, err
	}
	specs := make([]*store.Spec, len(wanted))
	for i, d := range wanted {
		if specs[i], err = indexSpec(d); err != nil {
			return nil, err
		}
	}
	before, existed := r.b.store.Collection(ns)
	made := 0
	for _, s := range specs {
		there, err := already(r.b.store, ns, s)
		if err != nil {
			return nil, err
		}
		if there {
			continue
		}
		if r.seq, err = r.b.store.CreateIndex(r.era, ns, s); err != nil {
			return nil, err
		}
		made++
	}
	reply := bson.D{{Key: "numIndexesBefore", Value: int32(max(len(before.Indexes), 1))},
		{Key: "numIndexesAfter", Value: int32(max(len(before.Indexes), 1) + made)},
		{Key: "createdCollectionAutomatically", Value: !existed}}
	if made == 0 {
		reply = append(reply, bson.E{Key: "note", Value: "all indexes already exist"})
	}
	return reply, nil
}

// already says whether the index is there; another one of its name, or its keys with other options, is an error.
func already(s *store.Store, ns store.Namespace, want *store.Spec) (bool, error) {
	info, _ := s.Collection(ns)
	for _, x := range info.Indexes {
		sameKeys := bsonval.Equal(x.Pattern, want.Pattern)
		sameOptions := x.Unique == want.Unique && x.Sparse == want.Sparse && bsonval.Equal(partialOf(x), partialOf(want))
		switch {
		case x.Name == "_id_" && sameKeys:
			return true, nil
		case x.Name == want.Name && sameKeys && sameOptions:
			return true, nil
		case x.Name == want.Name:
			return false, failure(codeIndexKeySpecs, "An existing index has the same name as the requested index. "+
				"When index names are not specified, they are auto generated and can cause conflicts. Requested index: %v, existing index: %v",
				want.Shown, x.Shown)
		case sameKeys && bsonval.Equal(partialOf(x), partialOf(want)):
			return false, failure(codeIndexOptions, "Index already exists with a different name: %s", x.Name)
		}
	}
	return false, nil
}

func partialOf(s *store.Spec) any {
	v, _ := fields(s.Shown).lookup("partialFilterExpression")
	return v
}

// indexSpec reads one index of createIndexes.
func indexSpec(d bson.D) (*store.Spec, error) {
	a := arguments{of: "createIndexes.indexes", in: d}
	if err := a.known([]string{"key", "name", "unique", "sparse", "hidden", "partialFilterExpression", "expireAfterSeconds",
		"background", "v", "ns"}); err != nil {
		for _, f := range []string{"collation", "weights", "default_language", "wildcardProjection", "2dsphereIndexVersion",
			"bits", "min", "max", "storageEngine", "clustered", "prepareUnique"} {
			if _, has := fields(d).lookup(f); has {
				return nil, refused("an index with " + f)
			}
		}
		return nil, err
	}
	s := &store.Spec{}
	var err error
	if s.Pattern, err = a.document("key"); err != nil {
		return nil, err
	}
	if s.Keys, err = indexKeys(s.Pattern); err != nil {
		return nil, err
	}
	if s.Name, err = a.text("name"); err != nil {
		return nil, err
	}
	if err := indexOptions(s, a); err != nil {
		return nil, err
	}
	s.Shown = append(bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: s.Pattern}, {Key: "name", Value: s.Name}},
		slices.DeleteFunc(slices.Clone(d), func(f bson.E) bool {
			return slices.Contains([]string{"v", "key", "name", "ns", "background"}, f.Key)
		})...)
	return s, nil
}

func indexKeys(pattern bson.D) ([]store.KeyPart, error) {
	if len(pattern) == 0 || len(pattern) > 32 {
		return nil, failure(codeCannotCreateIndex, "Index keys cannot be an empty object, and at most 32 fields")
	}
	var parts []store.KeyPart
	for _, f := range pattern {
		if kind, is := f.Value.(string); is {
			return nil, refused(fmt.Sprintf("an index of type %q", kind))
		}
		if !bsonval.IsNumber(f.Value) || bsonval.Compare(f.Value, int32(0)) == 0 {
			return nil, failure(codeCannotCreateIndex, "Values in the index key pattern cannot be 0 or of another type than number")
		}
		if f.Key == "" || f.Key == "$**" || strings.HasSuffix(f.Key, ".$**") || strings.HasPrefix(f.Key, "$") {
			return nil, refused(fmt.Sprintf("an index on %q", f.Key))
		}
		parts = append(parts, store.Part(f.Key, bsonval.Compare(f.Value, int32(0))))
	}
	return parts, nil
}

func indexOptions(s *store.Spec, a arguments) (err error) {
	for _, o := range []struct {
		name string
		to   *bool
	}{{"unique", &s.Unique}, {"sparse", &s.Sparse}, {"hidden", &s.Hidden}} {
		if *o.to, err = a.truth(o.name, false); err != nil {
			return err
		}
	}
	if _, has := fields(a.in).lookup("expireAfterSeconds"); has {
		seconds, err := a.integer("expireAfterSeconds", 0)
		if err != nil || seconds < 0 || len(s.Keys) != 1 {
			return failure(codeCannotCreateIndex, "TTL indexes are single-field indexes with expireAfterSeconds of 0 or more")
		}
		s.ExpireAfterSeconds = &seconds
	}
	partial, err := a.document("partialFilterExpression")
	if err != nil || partial == nil {
		return err
	}
	if s.Sparse {
		return failure(codeCannotCreateIndex, "cannot mix \"partialFilterExpression\" and \"sparse\" options")
	}
	f, err := operators.CompileFilter(partial)
	if err != nil {
		return err
	}
	s.Partial = func(d bson.D) bool { ok, _, err := f.Match(d); return ok && err == nil }
	return nil
}

func dropIndexes(_ context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	info, ok := r.b.store.Collection(ns)
	if !ok {
		return nil, failure(codeNamespaceNotFound, "ns not found %s", ns)
	}
	names, err := namesToDrop(r, info)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if r.seq, err = r.b.store.DropIndex(r.era, ns, name); err != nil {
			return nil, fmt.Errorf("%w with name [%s]", err, name)
		}
	}
	return bson.D{{Key: "nIndexesWas", Value: int32(len(info.Indexes))}}, nil
}

func namesToDrop(r *request, info store.CollectionInfo) ([]string, error) {
	switch v, _ := r.lookup("index"); v := v.(type) {
	case string:
		return []string{v}, nil
	case bson.D:
		name, err := indexNamed(info, bson.D{{Key: "keyPattern", Value: v}})
		return []string{name}, err
	case bson.A:
		var names []string
		for _, n := range v {
			s, is := n.(string)
			if !is {
				return nil, r.args().wrong("index", n, "string")
			}
			names = append(names, s)
		}
		return names, nil
	default:
		return nil, r.args().wrong("index", v, "string")
	}
}

// indexNamed finds an index by name or keyPattern.
func indexNamed(info store.CollectionInfo, by bson.D) (string, error) {
	if name, is := fields(by).lookup("name"); is {
		s, _ := name.(string)
		return s, nil
	}
	pattern, _ := fields(by).lookup("keyPattern")
	for _, x := range info.Indexes {
		if bsonval.Equal(x.Pattern, pattern) {
			return x.Name, nil
		}
	}
	return "", failure(codeIndexNotFound, "can't find index with key: %v", pattern)
}
