package mongosim

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/wire"
)

// command is what is known of one: its fields, what it is allowed to, and who does it.
type command struct {
	do     func(context.Context, *request) (bson.D, error)
	fields []string
	kind   commandKind
}

type commandKind int

const (
	about  commandKind = iota // answers on any node, without a look at the data
	reads                     // needs a primary or a read preference
	writes                    // needs a primary, waits for its write concern
	retry                     // a write that may carry a txnNumber
)

// generic are the fields that every command may carry.
var generic = []string{"$db", "lsid", "txnNumber", "$clusterTime", "$readPreference", "readConcern", "writeConcern", "maxTimeMS",
	"comment", "apiVersion", "apiStrict", "apiDeprecationErrors", "autocommit", "startTransaction", "$audit", "$client", "help",
	"maxTimeMSOpOnly", "mayBypassWriteBlocking", "$configTime", "$topologyTime"}

// find looks a command up. It is a switch, not a table, so that there is no state to set up.
func (b *Backend) command(name string) (command, bool) {
	for _, group := range []func(string) (command, bool){b.writeCommand, b.readCommand, b.schemaCommand, b.aboutCommand} {
		if c, ok := group(name); ok {
			return c, true
		}
	}
	return command{}, false
}

func (b *Backend) writeCommand(name string) (c command, ok bool) {
	switch name {
	case "insert":
		return command{insert, []string{"documents", "ordered", "bypassDocumentValidation", "stmtId", "stmtIds"}, retry}, true
	case "update":
		return command{update, []string{"updates", "ordered", "bypassDocumentValidation", "let", "stmtId", "stmtIds"}, retry}, true
	case "delete":
		return command{remove, []string{"deletes", "ordered", "let", "stmtId", "stmtIds"}, retry}, true
	case "findAndModify", "findandmodify":
		return command{findAndModify, []string{"query", "fields", "sort", "hint", "remove", "update", "new", "upsert", "arrayFilters",
			"bypassDocumentValidation", "collation", "let", "stmtId"}, retry}, true
	case "bulkWrite":
		return command{bulkWrite, []string{"ops", "nsInfo", "ordered", "errorsOnly", "let", "bypassDocumentValidation", "cursor",
			"stmtId", "stmtIds"}, retry}, b.options.WireVersion >= WireVersion80
	}
	return command{}, false
}

func (b *Backend) readCommand(name string) (c command, ok bool) {
	switch name {
	case "find":
		return command{find, []string{"filter", "projection", "sort", "limit", "skip", "batchSize", "singleBatch", "hint", "let",
			"collation", "allowDiskUse", "noCursorTimeout", "allowPartialResults", "returnKey", "showRecordId", "tailable",
			"awaitData", "oplogReplay", "min", "max"}, reads}, true
	case "aggregate":
		return command{aggregateCommand, []string{"pipeline", "cursor", "explain", "allowDiskUse", "hint", "let", "collation",
			"bypassDocumentValidation"}, reads}, true
	case "count":
		return command{count, []string{"query", "limit", "skip", "hint", "collation", "fields"}, reads}, true
	case "distinct":
		return command{distinct, []string{"key", "query", "collation", "hint"}, reads}, true
	case "getMore":
		return command{getMore, []string{"collection", "batchSize", "term", "lastKnownCommittedOpTime"}, about}, true
	case "killCursors":
		return command{killCursors, []string{"cursors"}, about}, true
	case "listCollections":
		return command{listCollections, []string{"filter", "nameOnly", "authorizedCollections", "cursor"}, reads}, true
	case "listDatabases":
		return command{listDatabases, []string{"filter", "nameOnly", "authorizedDatabases"}, reads}, true
	case "listIndexes":
		return command{listIndexes, []string{"cursor", "includeBuildUUIDs", "includeIndexBuildInfo"}, reads}, true
	case "collStats", "dbStats":
		return command{stats, []string{"scale", "freeStorage"}, reads}, true
	}
	return command{}, false
}

func (b *Backend) schemaCommand(name string) (c command, ok bool) {
	switch name {
	case "create":
		return command{create, nil, writes}, true // it looks at its many options itself
	case "drop":
		return command{drop, nil, writes}, true
	case "dropDatabase":
		return command{dropDatabase, nil, writes}, true
	case "renameCollection":
		return command{renameCollection, []string{"to", "dropTarget"}, writes}, true
	case "collMod":
		return command{collMod, []string{"index"}, writes}, true
	case "createIndexes":
		return command{createIndexes, []string{"indexes", "commitQuorum", "ignoreUnknownIndexOptions"}, writes}, true
	case "dropIndexes", "deleteIndexes":
		return command{dropIndexes, []string{"index"}, writes}, true
	}
	return command{}, false
}

// execute does a command from its checks to its write concern.
func (b *Backend) execute(ctx context.Context, r *request) (bson.D, error) {
	c, ok := b.command(r.name)
	if !ok {
		return nil, failure(codeCommandNotFound, "no such command: '%s'", r.name)
	}
	if err := b.admit(r, c); err != nil {
		return nil, err
	}
	ctx, cancel, err := r.deadline(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	release, err := r.checkout(ctx, c)
	if err != nil {
		return nil, err
	}
	defer release()
	wc, err := r.writeConcern()
	if err != nil {
		return nil, err
	}
	reply, err := c.do(ctx, r)
	switch {
	case err != nil:
	case c.kind >= writes:
		reply, err = r.secure(ctx, reply, wc)
	case c.kind == reads:
		err = r.readConcern(ctx)
	}
	if err != nil {
		return nil, err
	}
	return b.finish(reply), nil
}

// admit refuses what can't be done here: unknown fields, transactions, writes on a secondary.
func (b *Backend) admit(r *request, c command) error {
	if r.name != "create" && c.kind != about || len(c.fields) > 0 {
		if err := r.args().known([]string{r.name}, c.fields, generic); err != nil {
			return err
		}
	}
	for _, name := range []string{"startTransaction", "autocommit"} {
		if _, has := r.lookup(name); has {
			return refused("a transaction over several documents")
		}
	}
	if c.kind == about || !b.isSecondary() {
		return nil
	}
	if c.kind >= writes {
		return failure(codeNotPrimary, "not primary")
	}
	if p, _ := r.args().document("$readPreference"); p != nil {
		if mode, _ := fields(p).lookup("mode"); mode != "primary" {
			return nil
		}
	}
	return failure(codeNotPrimaryNoOk, "not primary and secondaryOk=false")
}

// checkout reads the session; a retryable write waits for the attempt it may repeat.
func (r *request) checkout(ctx context.Context, c command) (release func(), err error) {
	nothing := func() {}
	lsid, err := r.args().document("lsid")
	if err != nil {
		return nil, err
	}
	if lsid != nil {
		r.session = string(bsonval.Canonical(lsid))
	}
	if _, r.retried = r.lookup("txnNumber"); !r.retried || c.kind != retry {
		return nothing, nil
	}
	if r.b.options.ReplicaSet == "" {
		return nil, failure(codeIllegalOperation, "Transaction numbers are only allowed on a replica set member or mongos")
	}
	if r.session == "" {
		return nil, failure(codeInvalidOptions, "Transaction number requires a session ID to also be specified")
	}
	if r.txn, err = r.args().integer("txnNumber", 0); err != nil {
		return nil, err
	}
	if release, err = r.b.store.Checkout(ctx, r.session); err != nil {
		return nil, err
	}
	if err := r.b.store.Begin(r.session, r.txn); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// secure lets the fault after a write's effect happen and waits for the write concern.
func (r *request) secure(ctx context.Context, reply bson.D, wc concern) (bson.D, error) {
	if !r.b.control.Idle() {
		e := r.event()
		e.Point = fault.Applied
		if err := r.b.control.At(ctx, e); err != nil {
			return nil, err
		}
	}
	if wc.impossible != nil {
		return concernError(reply, wc.impossible, nil), nil
	}
	seq := r.seq
	if seq == 0 { // nothing was written: what the answer rests on has to be as durable as a write would be
		seq = r.b.store.Marks().Applied
	}
	waitCtx, cancel := wc.bound(ctx)
	defer cancel()
	err := r.b.store.Wait(waitCtx, r.era, seq, wc.guarantee)
	if errors.Is(err, errWaitTime) {
		timedOut := failure(codeWriteConcern, "waiting for replication timed out")
		return concernError(reply, timedOut, bson.D{{Key: "wtimeout", Value: true}}), nil
	}
	return reply, err
}

func concernError(reply bson.D, err error, info bson.D) bson.D {
	e := bson.D{}
	if ce := new(wire.CommandError); errors.As(err, &ce) {
		e = bson.D{{Key: "code", Value: ce.Code}, {Key: "codeName", Value: ce.Name}, {Key: "errmsg", Value: ce.Message}}
	}
	if info != nil {
		e = append(e, bson.E{Key: "errInfo", Value: info})
	}
	return append(reply, bson.E{Key: "writeConcernError", Value: e})
}

// finish adds what every reply ends with.
func (b *Backend) finish(reply bson.D) bson.D {
	reply = append(reply, bson.E{Key: "ok", Value: 1.0})
	if b.options.ReplicaSet == "" {
		return reply
	}
	now := optime(b.store.Marks().Applied)
	return append(reply, bson.E{Key: "$clusterTime", Value: bson.D{{Key: "clusterTime", Value: now}, {Key: "signature", Value: bson.D{
		{Key: "hash", Value: bson.Binary{Data: make([]byte, 20)}}, {Key: "keyId", Value: int64(0)}}}}},
		bson.E{Key: "operationTime", Value: now})
}

// optime is a place in history as drivers see it: the seconds are made up, the order is real.
func optime(seq int64) bson.Timestamp {
	const epoch, each = 1_577_836_800, 1 << 20
	return bson.Timestamp{T: uint32(epoch + seq/each), I: uint32(seq%each) + 1}
}
