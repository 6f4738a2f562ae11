package mongosim

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
)

// batch is the statements of one write command and what became of them.
type batch struct {
	r       *request
	ordered bool
	stmts   []int32
	errors  bson.A
}

func (r *request) batch(statements int) (*batch, error) {
	b := &batch{r: r}
	var err error
	if b.ordered, err = r.args().truth("ordered", true); err != nil {
		return nil, err
	}
	b.stmts, err = r.statementIDs(statements)
	return b, err
}

// statementIDs numbers the statements for retries: as the client says, or from 0.
func (r *request) statementIDs(n int) ([]int32, error) {
	ids := make([]int32, n)
	first, err := r.args().integer("stmtId", 0)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		ids[i] = int32(first) + int32(i)
	}
	list, err := r.args().array("stmtIds")
	if err != nil || list == nil {
		return ids, err
	}
	if len(list) != n {
		return nil, failure(codeInvalidOptions, "stmtIds has %d entries for %d statements", len(list), n)
	}
	for i, v := range list {
		id, _ := bsonval.ToInt64(v)
		ids[i] = int32(id)
	}
	return ids, nil
}

// run does the statements one by one. It fails only where the whole command fails.
func (b *batch) run(ctx context.Context, n int, do func(i int) error) error {
	for i := range n {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := do(i)
		if err == nil {
			continue
		}
		if converted := asCommandError(err); endsBatch(converted) {
			return converted
		}
		b.errors = append(b.errors, writeError(i, err))
		if b.ordered {
			break
		}
	}
	return nil
}

func (b *batch) reply(d bson.D) bson.D {
	if len(b.errors) > 0 {
		d = append(d, bson.E{Key: "writeErrors", Value: b.errors})
	}
	return d
}

// recorded is what statement i did when it ran before; false if it has not.
func (r *request) recorded(stmt int32) (store.Outcome, bool) {
	if !r.retried {
		return store.Outcome{}, false
	}
	o, ok := r.b.store.Recorded(r.session, r.txn, stmt)
	if ok {
		r.seq = max(r.seq, o.Seq) // the answer to a retry is as durable as the write it repeats
	}
	return o, ok
}

func (r *request) record(stmt int32, o store.Outcome) *store.Stmt {
	if !r.retried {
		return nil
	}
	return &store.Stmt{Session: r.session, Txn: r.txn, ID: stmt, Outcome: o}
}

func insert(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	docs, err := r.args().documents("documents")
	if err != nil {
		return nil, err
	}
	b, err := r.batch(len(docs))
	if err != nil {
		return nil, err
	}
	n := 0
	err = b.run(ctx, len(docs), func(i int) error {
		if _, done := r.recorded(b.stmts[i]); done {
			n++
			return nil
		}
		err := r.insertOne(ns, docs[i], b.stmts[i])
		if err == nil {
			n++
		}
		return err
	})
	return b.reply(bson.D{{Key: "n", Value: int32(n)}}), err
}

func (r *request) insertOne(ns store.Namespace, body bson.D, stmt int32) error {
	doc, err := r.newDocument(body)
	if err != nil {
		return err
	}
	c := store.Change{After: doc, Stmt: r.record(stmt, store.Outcome{ID: doc.ID()})}
	seq, err := r.b.store.Commit(r.era, ns, c)
	if err == nil {
		r.seq = seq
	}
	return err
}

// newDocument makes what a client sent storable: _id first, one that may be an _id, and all within the limits.
func (r *request) newDocument(body bson.D) (*store.Doc, error) {
	at := slices.IndexFunc(body, func(f bson.E) bool { return f.Key == "_id" })
	switch {
	case at < 0:
		body = append(bson.D{{Key: "_id", Value: r.b.newObjectID()}}, body...)
	case at > 0:
		id := body[at]
		body = append(bson.D{id}, slices.Delete(slices.Clone(body), at, at+1)...)
	}
	if err := checkID(body[0].Value); err != nil {
		return nil, err
	}
	for i, f := range body {
		if i > 0 && f.Value == (bson.Timestamp{}) { // an empty timestamp means now
			body = slices.Clone(body)
			body[i].Value = optime(r.b.store.Marks().Applied + 1)
		}
	}
	if err := bsonval.CheckDepth(body); err != nil {
		return nil, err
	}
	return r.version(body)
}

// version makes a version of a body that is known to have a good _id.
func (r *request) version(body bson.D) (*store.Doc, error) {
	doc, err := store.NewDoc(body)
	if err == nil && len(doc.Raw) > bsonval.MaxDocumentSize {
		return nil, failure(10334, "BSONObj size: %d (0x%X) is invalid. Size must be between 0 and %d(16MB)", len(doc.Raw), len(doc.Raw), bsonval.MaxDocumentSize)
	}
	return doc, err
}

func checkID(id any) error {
	switch v := id.(type) {
	case bson.A, bson.Regex, bson.Undefined:
		return failure(codeInvalidIDField, "The '_id' value cannot be of type %s", bsonval.TypeName(id))
	case bson.D:
		for _, f := range v {
			if f.Key != "" && f.Key[0] == '$' {
				return failure(52, "_id fields may not contain '$'-prefixed fields: %s is not valid for storage.", f.Key)
			}
		}
	}
	return nil
}

// newObjectID draws from the seed, so that a run can be repeated; the time in it is the injected clock's.
func (b *Backend) newObjectID() bson.ObjectID {
	id := bson.NewObjectIDFromTimestamp(b.options.Now())
	copy(id[4:], b.randomBytes(8))
	return id
}

func (b *Backend) randomBytes(n int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(b.rand.Uint32())
	}
	return p
}
