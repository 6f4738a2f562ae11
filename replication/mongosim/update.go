package mongosim

import (
	"bytes"
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

// modification is an update statement, or the update of a findAndModify.
type modification struct {
	selection
	query  bson.D
	update *operators.Update
	let    bson.D
	multi  bool
	upsert bool
	stmt   int32
	image  func(before, after *store.Doc) *store.Doc // what a retried findAndModify answers; nil for update
}

// modified is what a modification did.
type modified struct {
	n, changed    int
	upserted      any // _id of a document that was inserted
	isUpsert      bool
	before, after *store.Doc // of a single one
}

func update(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	list, err := r.args().documents("updates")
	if err != nil {
		return nil, err
	}
	let, err := r.args().document("let")
	if err != nil {
		return nil, err
	}
	b, err := r.batch(len(list))
	if err != nil {
		return nil, err
	}
	var total modified
	var upserted bson.A
	err = b.run(ctx, len(list), func(i int) error {
		m, err := r.modification(ns, list[i], let)
		if err != nil {
			return err
		}
		m.stmt = b.stmts[i]
		did, err := r.modify(ctx, m)
		total.n, total.changed = total.n+did.n, total.changed+did.changed
		if did.isUpsert {
			upserted = append(upserted, bson.D{{Key: "index", Value: int32(i)}, {Key: "_id", Value: did.upserted}})
		}
		return err
	})
	reply := bson.D{{Key: "n", Value: int32(total.n)}}
	if upserted != nil {
		reply = append(reply, bson.E{Key: "upserted", Value: upserted})
	}
	return b.reply(append(reply, bson.E{Key: "nModified", Value: int32(total.changed)})), err
}

// modification reads one statement of an update command.
func (r *request) modification(ns store.Namespace, d, let bson.D) (m modification, err error) {
	a := arguments{of: "update.updates", in: d}
	if err := a.known([]string{"q", "u", "c", "upsert", "multi", "arrayFilters", "collation", "hint", "sort"}); err != nil {
		return m, err
	}
	if m.query, err = a.document("q"); err != nil {
		return m, err
	}
	if m.upsert, err = a.truth("upsert", false); err != nil {
		return m, err
	}
	if m.multi, err = a.truth("multi", false); err != nil {
		return m, err
	}
	sort, err := a.document("sort")
	if err != nil {
		return m, err
	}
	if m.multi && sort != nil {
		return m, failure(codeFailedToParse, "Cannot specify sort with multi=true")
	}
	if err := refuseCollation(a); err != nil {
		return m, err
	}
	u, _ := fields(d).lookup("u")
	if _, has := fields(d).lookup("c"); has {
		let, _ = a.document("c") // constants of a pipeline update, in bulkWrite's and update's statements
	}
	return m, r.prepare(&m, ns, u, sort, let, a)
}

// prepare compiles what update and findAndModify share.
func (r *request) prepare(m *modification, ns store.Namespace, u any, sort, let bson.D, a arguments) (err error) {
	filters, err := a.array("arrayFilters")
	if err != nil {
		return err
	}
	arrayFilters, err := asDocuments(a, "arrayFilters", filters)
	if err != nil {
		return err
	}
	if m.update, err = operators.CompileUpdate(u, arrayFilters); err != nil {
		return err
	}
	m.let = let
	if m.multi && m.update.IsReplacement() {
		return failure(codeFailedToParse, "multi update is not supported for replacement-style update")
	}
	if m.multi && r.retried {
		return failure(codeInvalidOptions, "Cannot use retryable writes with multi=true")
	}
	m.selection, err = r.selection(ns, m.query, sort, let)
	return err
}

func refuseCollation(a arguments) error {
	d, err := a.document("collation")
	if err != nil || len(d) == 0 {
		return err
	}
	if locale, _ := fields(d).lookup("locale"); locale == "simple" {
		return nil
	}
	return refused("a collation")
}

// modify does an update statement once, also when it is a retry.
func (r *request) modify(ctx context.Context, m modification) (modified, error) {
	if o, done := r.recorded(m.stmt); done {
		return modified{n: 1, changed: bint(!o.Upserted), upserted: o.ID, isUpsert: o.Upserted, before: o.Image, after: o.Image}, nil
	}
	for {
		did, err := r.modifyFound(ctx, m)
		if err != nil || did.n > 0 || !m.upsert {
			return did, err
		}
		did, err = r.upsertOne(m)
		dup := new(store.DuplicateKey)
		if errors.As(err, &dup) && m.raced(r.b, dup) {
			continue // somebody else inserted what this would have: now there is something to update
		}
		return did, err
	}
}

func (r *request) modifyFound(ctx context.Context, m modification) (did modified, err error) {
	e := edit{selection: m.selection, change: func(before *store.Doc, at operators.Positions) (*store.Doc, error) {
		return r.apply(m, before, at)
	}}
	count := func(before, after *store.Doc) {
		did.n++
		did.changed += bint(before != after)
	}
	if m.multi {
		return did, r.many(ctx, e, count)
	}
	if r.retried {
		e.record = func(before, after *store.Doc) *store.Stmt {
			return r.record(m.stmt, store.Outcome{ID: after.ID(), Image: m.imageOf(before, after)})
		}
	}
	did.before, did.after, err = r.one(ctx, e)
	if err == nil && did.before != nil {
		count(did.before, did.after)
	}
	return did, err
}

func (m *modification) imageOf(before, after *store.Doc) *store.Doc {
	if m.image == nil {
		return nil
	}
	return m.image(before, after)
}

// apply works out the next version of a document; the same one if nothing changes.
func (r *request) apply(m modification, before *store.Doc, at operators.Positions) (*store.Doc, error) {
	in := operators.ApplyInput{Now: r.b.options.Now(), Timestamp: optime(r.b.store.Marks().Applied + 1), Positions: at, Let: m.let}
	body, _, err := m.update.Apply(before.Body, in)
	if err != nil {
		return nil, err
	}
	after, err := r.version(body)
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(after.Raw, before.Raw):
		return before, nil
	case after.Key != before.Key:
		return nil, failure(66, "Performing an update on the path '_id' would modify the immutable field '_id'")
	}
	return after, nil
}

func (r *request) upsertOne(m modification) (did modified, err error) {
	body, err := m.filter.InsertDocument(m.update.IsReplacement())
	if err != nil {
		return did, err
	}
	in := operators.ApplyInput{Now: r.b.options.Now(), Timestamp: optime(r.b.store.Marks().Applied + 1), Insert: true, Let: m.let}
	if body, _, err = m.update.Apply(body, in); err != nil {
		return did, err
	}
	doc, err := r.newDocument(body)
	if err != nil {
		return did, err
	}
	c := store.Change{After: doc}
	c.Stmt = r.record(m.stmt, store.Outcome{ID: doc.ID(), Upserted: true, Image: m.imageOf(nil, doc)})
	seq, err := r.b.store.Commit(r.era, m.ns, c)
	if err != nil {
		return did, err
	}
	r.seq = seq
	return modified{n: 1, upserted: doc.ID(), isUpsert: true, after: doc}, nil
}

// raced says whether the duplicate key of an upsert is a race with another writer, not a conflict with the data: the
// filter names the very key by equality.
func (m *modification) raced(b *Backend, dup *store.DuplicateKey) bool {
	for i, f := range dup.Pattern {
		in := m.selection.query.Bounds[f.Key].In
		if len(in) != 1 || !bsonval.Equal(in[0], dup.Value[i].Value) {
			return false
		}
	}
	return !b.isDown()
}

func bint(b bool) int {
	if b {
		return 1
	}
	return 0
}

// remove is the delete command.
func remove(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	list, err := r.args().documents("deletes")
	if err != nil {
		return nil, err
	}
	let, err := r.args().document("let")
	if err != nil {
		return nil, err
	}
	b, err := r.batch(len(list))
	if err != nil {
		return nil, err
	}
	n := 0
	err = b.run(ctx, len(list), func(i int) error {
		did, err := r.deleteStatement(ctx, ns, list[i], let, b.stmts[i])
		n += did
		return err
	})
	return b.reply(bson.D{{Key: "n", Value: int32(n)}}), err
}

func (r *request) deleteStatement(ctx context.Context, ns store.Namespace, d, let bson.D, stmt int32) (n int, err error) {
	a := arguments{of: "delete.deletes", in: d}
	if err := a.known([]string{"q", "limit", "collation", "hint"}); err != nil {
		return 0, err
	}
	if err := refuseCollation(a); err != nil {
		return 0, err
	}
	q, err := a.document("q")
	if err != nil {
		return 0, err
	}
	limit, err := a.integer("limit", -1)
	switch {
	case err != nil:
		return 0, err
	case limit != 0 && limit != 1:
		return 0, failure(codeFailedToParse, "The limit field in delete objects must be 0 or 1. Got %d", limit)
	case limit == 0 && r.retried:
		return 0, failure(codeInvalidOptions, "Cannot use retryable writes with limit=0")
	}
	s, err := r.selection(ns, q, nil, let)
	if err != nil {
		return 0, err
	}
	if limit == 0 {
		err = r.many(ctx, edit{selection: s, change: gone}, func(*store.Doc, *store.Doc) { n++ })
		return n, err
	}
	doc, err := r.deleteOne(ctx, s, stmt, nil)
	return bint(doc != nil), err
}

func gone(*store.Doc, operators.Positions) (*store.Doc, error) { return nil, nil }

// deleteOne deletes the first document that matches and returns it, also when this is a retry; image is what a retry is
// to get instead of nothing.
func (r *request) deleteOne(ctx context.Context, s selection, stmt int32, image func(before, after *store.Doc) *store.Doc) (*store.Doc, error) {
	if o, done := r.recorded(stmt); done {
		if o.Image == nil {
			return &store.Doc{}, nil // it was deleted, and only that is asked
		}
		return o.Image, nil
	}
	e := edit{selection: s, change: gone}
	if r.retried {
		e.record = func(before, after *store.Doc) *store.Stmt {
			o := store.Outcome{ID: before.ID()}
			if image != nil {
				o.Image = image(before, after)
			}
			return r.record(stmt, o)
		}
	}
	before, _, err := r.one(ctx, e)
	return before, err
}
