package operators

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// maxSortKeys is the server's limit of fields in a sort (those of a compound index).
const maxSortKeys = 32

type sortKey struct {
	path []string
	sign int
}

// Sort is a compiled sort order. It may be used by many goroutines at once.
type Sort struct{ keys []sortKey }

// CompileSort compiles {field: 1 | -1, …}. An empty one leaves every order.
func CompileSort(spec bson.D) (*Sort, error) {
	if len(spec) > maxSortKeys {
		return nil, refuse("too many compound keys: %d", len(spec))
	}
	s := &Sort{}
	for _, e := range spec {
		n, ok := bsonval.ToExactInt64(e.Value)
		path := bsonval.SplitPath(e.Key)
		switch {
		case !ok || n != 1 && n != -1:
			return nil, refuse("Illegal key in $sort specification: %s: $sort key ordering must be 1 (for ascending) or -1 (for descending)", e.Key)
		case slices.Contains(path, ""):
			return nil, bsonval.Errorf(15998, "FieldPath field names may not be empty strings.")
		case strings.HasPrefix(e.Key, "$"):
			return nil, refuse("FieldPath field names may not start with '$': %s", e.Key)
		}
		s.keys = append(s.keys, sortKey{path, int(n)})
	}
	return s, nil
}

// Compare orders two documents. Where a path leads to several values (through arrays) the least counts for an ascending
// key, the greatest for a descending one; nothing counts as null, an empty array as less than null.
func (s *Sort) Compare(a, b bson.D) int {
	for _, k := range s.keys {
		if c := k.sign * bsonval.Compare(k.of(a), k.of(b)); c != 0 {
			return c
		}
	}
	return 0
}

// of is the document's key.
func (k sortKey) of(d bson.D) any {
	var best any
	found := false
	take := func(v any) {
		if _, missing := v.(bsonval.Missing); missing {
			v = nil
		}
		if !found || bsonval.Compare(v, best)*k.sign < 0 {
			best, found = v, true
		}
	}
	walk(d, k.path, false, func(v any, _ int) bool {
		a, ok := v.(bson.A)
		if !ok {
			take(v)
			return false
		}
		if len(a) == 0 {
			take(bson.Undefined{})
		}
		for _, e := range a {
			take(e)
		}
		return false
	})
	return best
}
