package mongosim

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/codec"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

// reading is a source of what find asks: matches, less the skipped ones, up to the limit, projected.
type reading struct {
	*found
	skip, limit int64 // limit < 0 for none
	projection  *operators.Projection
}

func (s *reading) next(ctx context.Context) (bson.Raw, error) {
	if s.limit == 0 {
		return nil, nil
	}
	for ; s.skip > 0; s.skip-- {
		if doc, _, err := s.found.next(ctx); doc == nil || err != nil {
			return nil, err
		}
	}
	doc, at, err := s.found.next(ctx)
	if doc == nil || err != nil {
		return nil, err
	}
	if s.limit > 0 {
		s.limit--
	}
	return project(s.projection, doc, at)
}

func project(p *operators.Projection, doc *store.Doc, at operators.Positions) (bson.Raw, error) {
	if p == nil {
		return doc.Raw, nil
	}
	d, err := p.Apply(doc.Body, at)
	if err != nil {
		return nil, err
	}
	return codec.Encode(d)
}

func compileProjection(spec bson.D, vars operators.Variables) (*operators.Projection, error) {
	if len(spec) == 0 {
		return nil, nil
	}
	return operators.CompileProjection(spec, vars)
}

func find(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	a := r.args()
	if err := refuseFindOptions(a); err != nil {
		return nil, err
	}
	s, err := r.reading(ns, a)
	if err != nil {
		return nil, err
	}
	n, err := batchSize(a, firstBatch)
	if err != nil {
		return nil, err
	}
	single, err := a.truth("singleBatch", false)
	if err != nil {
		return nil, err
	}
	return r.answer(ctx, ns, s, n, single)
}

func (r *request) reading(ns store.Namespace, a arguments) (s *reading, err error) {
	var d [4]bson.D
	for i, name := range []string{"filter", "sort", "let", "projection"} {
		if d[i], err = a.document(name); err != nil {
			return nil, err
		}
	}
	s = &reading{}
	sel, err := r.selection(ns, d[0], d[1], d[2])
	if err != nil {
		return nil, err
	}
	if s.projection, err = compileProjection(d[3], r.variables(d[2])); err != nil {
		return nil, err
	}
	if s.skip, s.limit, err = bounds(a); err != nil {
		return nil, err
	}
	s.found = r.b.open(sel)
	return s, nil
}

// bounds reads skip and limit; a limit of 0 is none.
func bounds(a arguments) (skip, limit int64, err error) {
	if skip, err = a.integer("skip", 0); err != nil {
		return 0, 0, err
	}
	if limit, err = a.integer("limit", 0); err != nil {
		return 0, 0, err
	}
	if skip < 0 || limit < 0 && a.of != "count" {
		return 0, 0, failure(51024, "BSON field 'skip' and 'limit' values must be >= 0, actual values '%d' and '%d'", skip, limit)
	}
	switch {
	case limit == 0:
		limit = -1
	case limit < 0:
		limit = -limit
	}
	return skip, limit, nil
}

func refuseFindOptions(a arguments) error {
	if err := refuseCollation(a); err != nil {
		return err
	}
	for _, name := range []string{"tailable", "awaitData", "oplogReplay", "returnKey", "showRecordId"} {
		on, err := a.truth(name, false)
		switch {
		case err != nil:
			return err
		case on && (name == "tailable" || name == "awaitData"):
			return failure(codeBadValue, "error processing query: tailable cursor requested on non capped collection")
		case on && name != "oplogReplay":
			return refused("find with " + name)
		}
	}
	for _, name := range []string{"min", "max"} {
		if d, err := a.document(name); err != nil || len(d) > 0 {
			return refused("find with " + name)
		}
	}
	return nil
}

func count(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	if err := refuseCollation(r.args()); err != nil {
		return nil, err
	}
	query, err := r.args().document("query")
	if err != nil {
		return nil, err
	}
	skip, limit, err := bounds(r.args())
	if err != nil {
		return nil, err
	}
	n := int64(r.b.store.Count(ns))
	if len(query) > 0 {
		if n, err = r.countMatches(ctx, ns, query); err != nil {
			return nil, err
		}
	}
	n = max(0, n-skip)
	if limit >= 0 {
		n = min(n, limit)
	}
	return bson.D{{Key: "n", Value: int32(n)}}, nil
}

func (r *request) countMatches(ctx context.Context, ns store.Namespace, query bson.D) (n int64, err error) {
	s, err := r.selection(ns, query, nil, nil)
	if err != nil {
		return 0, err
	}
	f := r.b.open(s)
	for {
		doc, _, err := f.next(ctx)
		if doc == nil || err != nil {
			return n, err
		}
		n++
	}
}

func distinct(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	if err := refuseCollation(r.args()); err != nil {
		return nil, err
	}
	key, err := r.args().text("key")
	if err != nil {
		return nil, err
	}
	query, err := r.args().document("query")
	if err != nil {
		return nil, err
	}
	s, err := r.selection(ns, query, nil, nil)
	if err != nil {
		return nil, err
	}
	values, seen := bson.A{}, map[string]struct{}{}
	f := r.b.open(s)
	for {
		doc, _, err := f.next(ctx)
		if err != nil {
			return nil, err
		}
		if doc == nil {
			return bson.D{{Key: "values", Value: values}}, nil
		}
		for _, v := range valuesAt(doc.Body, bsonval.SplitPath(key)) {
			k := string(bsonval.Canonical(v))
			if _, twice := seen[k]; !twice {
				seen[k] = struct{}{}
				values = append(values, v)
			}
		}
	}
}

// valuesAt is what a path leads to, through arrays; an array at its end stands for its elements.
func valuesAt(v any, path []string) (values []any) {
	switch x := v.(type) {
	case bson.A:
		if len(path) > 0 {
			if i, is := bsonval.Index(path[0]); is && i < len(x) {
				values = append(values, valuesAt(x[i], path[1:])...)
			}
		}
		for _, el := range x {
			if _, nested := el.(bson.A); len(path) == 0 {
				values = append(values, el)
			} else if !nested {
				values = append(values, valuesAt(el, path)...)
			}
		}
	case bson.D:
		if len(path) == 0 {
			return []any{x}
		}
		if inner, ok := fields(x).lookup(path[0]); ok {
			return valuesAt(inner, path[1:])
		}
	default:
		if len(path) == 0 {
			return []any{v}
		}
	}
	return values
}
