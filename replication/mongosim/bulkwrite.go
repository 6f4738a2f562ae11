package mongosim

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
)

// bulk is a bulkWrite command of 8.0: statements over several collections.
type bulk struct {
	r          *request
	namespaces []store.Namespace
	let        bson.D
	errorsOnly bool
	ordered    bool
	results    []bson.D

	errors, inserted, matched, modified, upserted, deleted int
}

func bulkWrite(ctx context.Context, r *request) (bson.D, error) {
	if r.db != "admin" {
		return nil, failure(13, "bulkWrite may only be run against the admin database.")
	}
	b := &bulk{r: r}
	ops, err := b.read()
	if err != nil {
		return nil, err
	}
	stmts, err := r.statementIDs(len(ops))
	if err != nil {
		return nil, err
	}
	for i, op := range ops {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		result, err := b.do(ctx, op, stmts[i])
		if err != nil {
			if converted := asCommandError(err); endsBatch(converted) {
				return nil, converted
			}
			b.fail(i, err)
			if b.ordered {
				break
			}
			continue
		}
		if !b.errorsOnly {
			b.results = append(b.results, append(bson.D{{Key: "ok", Value: 1.0}, {Key: "idx", Value: int32(i)}}, result...))
		}
	}
	return b.reply(ctx)
}

func (b *bulk) read() (ops []bson.D, err error) {
	a := b.r.args()
	if ops, err = a.documents("ops"); err != nil {
		return nil, err
	}
	infos, err := a.documents("nsInfo")
	if err != nil {
		return nil, err
	}
	for _, d := range infos {
		full, err := arguments{of: "bulkWrite.nsInfo", in: d}.text("ns")
		if err != nil {
			return nil, err
		}
		ns := split(full)
		if err := checkName(ns); err != nil {
			return nil, err
		}
		b.namespaces = append(b.namespaces, ns)
	}
	if b.ordered, err = a.truth("ordered", true); err != nil {
		return nil, err
	}
	if b.errorsOnly, err = a.truth("errorsOnly", false); err != nil {
		return nil, err
	}
	b.let, err = a.document("let")
	return ops, err
}

func (b *bulk) fail(i int, err error) {
	b.errors++
	d := writeError(i, err)
	d[0] = bson.E{Key: "idx", Value: int32(i)}
	b.results = append(b.results, append(bson.D{{Key: "ok", Value: 0.0}, {Key: "n", Value: int32(0)}}, d...))
}

// do runs one op and returns its result's fields.
func (b *bulk) do(ctx context.Context, op bson.D, stmt int32) (bson.D, error) {
	if len(op) == 0 {
		return nil, failure(codeFailedToParse, "empty op")
	}
	at, exact := bsonval.ToInt64(op[0].Value)
	if !exact || at < 0 || int(at) >= len(b.namespaces) {
		return nil, failure(codeBadValue, "BulkWrite ops entry has an invalid nsInfo index.")
	}
	ns := b.namespaces[at]
	switch op[0].Key {
	case "insert":
		return b.insert(ns, op, stmt)
	case "update":
		return b.update(ctx, ns, op, stmt)
	case "delete":
		return b.delete(ctx, ns, op, stmt)
	}
	return nil, failure(codeFailedToParse, "BulkWrite ops entry of unknown kind '%s'", op[0].Key)
}

func (b *bulk) insert(ns store.Namespace, op bson.D, stmt int32) (bson.D, error) {
	a := arguments{of: "insert", in: op}
	if err := a.known([]string{"insert", "document"}); err != nil {
		return nil, err
	}
	doc, err := a.document("document")
	if err != nil {
		return nil, err
	}
	if _, done := b.r.recorded(stmt); !done {
		if err := b.r.insertOne(ns, doc, stmt); err != nil {
			return nil, err
		}
	}
	b.inserted++
	return bson.D{{Key: "n", Value: int32(1)}}, nil
}

// renamed gives an op's fields the names that a statement of the update or delete command has.
func renamed(op bson.D, names map[string]string) (d bson.D) {
	for _, f := range op[1:] {
		if n := names[f.Key]; n != "" {
			f.Key = n
		}
		d = append(d, f)
	}
	return d
}

func (b *bulk) update(ctx context.Context, ns store.Namespace, op bson.D, stmt int32) (bson.D, error) {
	m, err := b.r.modification(ns, renamed(op, map[string]string{"filter": "q", "updateMods": "u", "constants": "c"}), b.let)
	if err != nil {
		return nil, err
	}
	m.stmt = stmt
	did, err := b.r.modify(ctx, m)
	if err != nil {
		return nil, err
	}
	b.modified += did.changed
	d := bson.D{{Key: "n", Value: int32(did.n)}, {Key: "nModified", Value: int32(did.changed)}}
	if did.isUpsert {
		b.upserted++
		return append(d, bson.E{Key: "upserted", Value: bson.D{{Key: "_id", Value: did.upserted}}}), nil
	}
	b.matched += did.n
	return d, nil
}

func (b *bulk) delete(ctx context.Context, ns store.Namespace, op bson.D, stmt int32) (bson.D, error) {
	d := renamed(op, map[string]string{"filter": "q", "multi": "limit"})
	for i := range d {
		if multi, is := d[i].Value.(bool); is && d[i].Key == "limit" {
			d[i].Value = int32(bint(!multi))
		}
	}
	if _, has := fields(d).lookup("limit"); !has {
		d = append(d, bson.E{Key: "limit", Value: int32(1)})
	}
	n, err := b.r.deleteStatement(ctx, ns, d, b.let, stmt)
	b.deleted += n
	return bson.D{{Key: "n", Value: int32(n)}}, err
}

func (b *bulk) reply(ctx context.Context) (bson.D, error) {
	n, err := b.r.cursorBatch()
	if err != nil {
		return nil, err
	}
	from, err := listOf(b.results)
	if err != nil {
		return nil, err
	}
	reply, err := b.r.answer(ctx, store.Namespace{DB: "admin", Coll: "$cmd.bulkWrite"}, from, max(n, len(b.results)), false)
	return append(reply, bson.E{Key: "nErrors", Value: int32(b.errors)}, bson.E{Key: "nInserted", Value: int32(b.inserted)},
		bson.E{Key: "nMatched", Value: int32(b.matched)}, bson.E{Key: "nModified", Value: int32(b.modified)},
		bson.E{Key: "nUpserted", Value: int32(b.upserted)}, bson.E{Key: "nDeleted", Value: int32(b.deleted)}), err
}
