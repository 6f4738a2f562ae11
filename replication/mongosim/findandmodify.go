package mongosim

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

// taking is a findAndModify as it was asked for.
type taking struct {
	modification
	remove, after bool
	projection    *operators.Projection
}

func findAndModify(ctx context.Context, r *request) (bson.D, error) {
	t, err := r.taking()
	if err != nil {
		return nil, err
	}
	last, doc, err := r.take(ctx, t)
	if err != nil {
		return nil, err
	}
	value := any(nil)
	if doc != nil {
		if value, err = project(t.projection, doc, operators.Positions{}); err != nil {
			return nil, err
		}
	}
	return bson.D{{Key: "lastErrorObject", Value: last}, {Key: "value", Value: value}}, nil
}

func (r *request) taking() (t taking, err error) {
	a := r.args()
	ns, err := r.target()
	if err != nil {
		return t, err
	}
	if t.query, err = a.document("query"); err != nil {
		return t, err
	}
	for _, o := range []struct {
		name string
		to   *bool
	}{{"remove", &t.remove}, {"new", &t.after}, {"upsert", &t.upsert}} {
		if *o.to, err = a.truth(o.name, false); err != nil {
			return t, err
		}
	}
	u, hasUpdate := r.lookup("update")
	switch {
	case t.remove && hasUpdate:
		return t, failure(codeFailedToParse, "Cannot specify both an update and remove=true")
	case t.remove && (t.upsert || t.after):
		return t, failure(codeFailedToParse, "Cannot specify both upsert=true or new=true and remove=true")
	case !t.remove && !hasUpdate:
		return t, failure(codeFailedToParse, "Either an update or remove=true must be specified")
	}
	if err := refuseCollation(a); err != nil {
		return t, err
	}
	return t, r.prepareTaking(&t, ns, u, a)
}

func (r *request) prepareTaking(t *taking, ns store.Namespace, u any, a arguments) error {
	sort, err := a.document("sort")
	if err != nil {
		return err
	}
	let, err := a.document("let")
	if err != nil {
		return err
	}
	spec, err := a.document("fields")
	if err != nil {
		return err
	}
	if t.projection, err = compileProjection(spec, r.variables(let)); err != nil {
		return err
	}
	ids, err := r.statementIDs(1)
	if err != nil {
		return err
	}
	t.stmt = ids[0]
	t.image = func(before, after *store.Doc) *store.Doc {
		if t.after {
			return after
		}
		return before
	}
	if t.remove {
		t.selection, err = r.selection(ns, t.query, sort, let)
		return err
	}
	return r.prepare(&t.modification, ns, u, sort, let, a)
}

// take does it, and returns the lastErrorObject and the document that was asked for.
func (r *request) take(ctx context.Context, t taking) (last bson.D, doc *store.Doc, err error) {
	if t.remove {
		doc, err := r.deleteOne(ctx, t.selection, t.stmt, func(before, _ *store.Doc) *store.Doc { return before })
		return bson.D{{Key: "n", Value: int32(bint(doc != nil))}}, doc, err
	}
	did, err := r.modify(ctx, t.modification)
	if err != nil {
		return nil, nil, err
	}
	last = bson.D{{Key: "n", Value: int32(did.n)}, {Key: "updatedExisting", Value: did.n > 0 && !did.isUpsert}}
	if did.isUpsert {
		last = append(last, bson.E{Key: "upserted", Value: did.upserted})
	}
	return last, t.image(did.before, did.after), nil
}
