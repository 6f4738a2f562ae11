package mongosim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"popfleet/replication/bsonval"
)

// runner does a command somewhere; its error carries the server's code.
type runner func(ctx context.Context, db string, cmd bson.D) (bson.D, error)

// conformCase is a row of commands and what a server answers: a reply that has at least these fields, or an error's code.
// The rows are written from MongoDB's manual; ferret marks those where FerretDB 1.24 is known to be right too.
type conformCase struct {
	name   string
	ferret bool
	steps  []step
}

type step struct {
	cmd  string // extended JSON
	want string // part of the reply; empty: it only has to succeed
	code int32
}

const some = `{"insert": "c", "documents": [{"_id": 1, "a": 1, "l": [1, 2]}, {"_id": 2, "a": 2, "l": [3]}, {"_id": 3, "b": {"c": 5}}]}`

func conformance() []conformCase {
	return []conformCase{
		{"insert and find", true, []step{{some, `{"n": 3}`, 0},
			{`{"find": "c", "filter": {"a": {"$gte": 2}}}`, `{"cursor": {"id": 0, "ns": "conform.c", "firstBatch": [{"_id": 2, "a": 2, "l": [3]}]}}`, 0},
			{`{"find": "c", "sort": {"_id": -1}, "limit": 1, "projection": {"_id": 1}}`, `{"cursor": {"firstBatch": [{"_id": 3}]}}`, 0},
			{`{"find": "none"}`, `{"cursor": {"id": 0, "firstBatch": []}}`, 0}}},
		{"duplicate _id", true, []step{{some, ``, 0}, {some, `{"n": 0, "writeErrors": [{"index": 0, "code": 11000}]}`, 0}}},
		{"unordered goes on", true, []step{{some, ``, 0},
			{`{"insert": "c", "ordered": false, "documents": [{"_id": 1}, {"_id": 9}, {"_id": 2}]}`, `{"n": 1, "writeErrors": [{"index": 0}, {"index": 2}]}`, 0}}},
		{"ordered stops", true, []step{{some, ``, 0},
			{`{"insert": "c", "documents": [{"_id": 8}, {"_id": 1}, {"_id": 9}]}`, `{"n": 1, "writeErrors": [{"index": 1}]}`, 0}, {`{"count": "c"}`, `{"n": 4}`, 0}}},
		{"key pattern and value", false, []step{{`{"createIndexes": "c", "indexes": [{"key": {"k": 1, "t": -1}, "name": "kt", "unique": true}]}`, ``, 0},
			{`{"insert": "c", "documents": [{"_id": 1, "k": "x", "t": 2}, {"_id": 2, "k": "x", "t": 2}]}`,
				`{"n": 1, "writeErrors": [{"index": 1, "code": 11000, "keyPattern": {"k": 1, "t": -1}, "keyValue": {"k": "x", "t": 2}}]}`, 0}}},
		{"update counts", true, []step{{some, ``, 0},
			{`{"update": "c", "updates": [{"q": {"_id": 1}, "u": {"$inc": {"a": 5}}}, {"q": {"_id": 2}, "u": {"$set": {"a": 2}}}, {"q": {"_id": 77}, "u": {"$set": {"a": 2}}}]}`, `{"n": 2, "nModified": 1}`, 0},
			{`{"find": "c", "filter": {"_id": 1}}`, `{"cursor": {"firstBatch": [{"a": 6}]}}`, 0}}},
		{"update many", true, []step{{some, ``, 0}, {`{"update": "c", "updates": [{"q": {}, "u": {"$set": {"z": true}}, "multi": true}]}`, `{"n": 3, "nModified": 3}`, 0}}},
		{"upsert", true, []step{{`{"update": "c", "updates": [{"q": {"_id": 7, "k": "v"}, "u": {"$inc": {"n": 1}, "$setOnInsert": {"s": 1}}, "upsert": true}]}`,
			`{"n": 1, "nModified": 0, "upserted": [{"index": 0, "_id": 7}]}`, 0}, {`{"find": "c"}`, `{"cursor": {"firstBatch": [{"_id": 7, "k": "v", "n": 1, "s": 1}]}}`, 0}}},
		{"array filters", false, []step{{some, ``, 0},
			{`{"update": "c", "updates": [{"q": {"_id": 1}, "u": {"$inc": {"l.$[big]": 10}}, "arrayFilters": [{"big": {"$gt": 1}}]}]}`, `{"n": 1}`, 0},
			{`{"find": "c", "filter": {"_id": 1}}`, `{"cursor": {"firstBatch": [{"l": [1, 12]}]}}`, 0}}},
		{"positional", false, []step{{some, ``, 0}, {`{"update": "c", "updates": [{"q": {"l": 2}, "u": {"$set": {"l.$": 9}}}]}`, `{"nModified": 1}`, 0},
			{`{"find": "c", "filter": {"_id": 1}}`, `{"cursor": {"firstBatch": [{"l": [1, 9]}]}}`, 0}}},
		{"pipeline update", false, []step{{some, ``, 0}, {`{"update": "c", "updates": [{"q": {"_id": 1}, "u": [{"$set": {"s": {"$add": ["$a", 1]}}}]}]}`, ``, 0},
			{`{"find": "c", "filter": {"_id": 1}}`, `{"cursor": {"firstBatch": [{"s": 2}]}}`, 0}}},
		{"replacement", true, []step{{some, ``, 0}, {`{"update": "c", "updates": [{"q": {"_id": 1}, "u": {"x": 1}}]}`, `{"n": 1, "nModified": 1}`, 0},
			{`{"find": "c", "filter": {"_id": 1}}`, `{"cursor": {"firstBatch": [{"_id": 1, "x": 1}]}}`, 0}}},
		{"immutable _id", false, []step{{some, ``, 0}, {`{"update": "c", "updates": [{"q": {"_id": 1}, "u": {"$set": {"_id": 5}}}]}`, `{"n": 0, "writeErrors": [{"code": 66}]}`, 0}}},
		{"bulk of mixed errors", false, []step{{some, ``, 0}, {`{"update": "c", "ordered": false, "updates": [{"q": {"_id": 3}, "u": {"$inc": {"b": 1}}}, {"q": {"_id": 1}, "u": {"$set": {"a": 9}}}]}`,
			`{"n": 1, "nModified": 1, "writeErrors": [{"index": 0, "code": 14}]}`, 0}}},
		{"delete", true, []step{{some, ``, 0}, {`{"delete": "c", "deletes": [{"q": {"_id": 1}, "limit": 1}, {"q": {}, "limit": 0}]}`, `{"n": 3}`, 0}, {`{"count": "c"}`, `{"n": 0}`, 0}}},
		{"findAndModify", true, []step{{some, ``, 0},
			{`{"findAndModify": "c", "query": {"a": {"$gt": 0}}, "sort": {"a": -1}, "update": {"$inc": {"a": 10}}, "new": true}`, `{"value": {"_id": 2, "a": 12}, "lastErrorObject": {"n": 1, "updatedExisting": true}}`, 0},
			{`{"findAndModify": "c", "query": {"_id": 1}, "remove": true}`, `{"value": {"_id": 1}, "lastErrorObject": {"n": 1}}`, 0},
			{`{"findAndModify": "c", "query": {"_id": 50}, "update": {"$set": {"x": 1}}}`, `{"value": null, "lastErrorObject": {"n": 0, "updatedExisting": false}}`, 0},
			{`{"findAndModify": "c", "query": {"_id": 51}, "update": {"$set": {"x": 1}}, "upsert": true, "new": true}`, `{"value": {"_id": 51, "x": 1}, "lastErrorObject": {"n": 1, "upserted": 51}}`, 0}}},
		{"findAndModify fields", false, []step{{some, ``, 0}, {`{"findAndModify": "c", "query": {"_id": 1}, "update": {"$set": {"x": 1}}, "fields": {"a": 1, "_id": 0}}`, `{"value": {"a": 1}}`, 0},
			{`{"findAndModify": "c", "query": {}, "remove": true, "new": true}`, ``, 9}}},
		{"count and distinct", true, []step{{some, ``, 0}, {`{"count": "c", "query": {"a": {"$exists": true}}}`, `{"n": 2}`, 0}, {`{"distinct": "c", "key": "a"}`, `{"values": [1, 2]}`, 0}}},
		{"distinct through arrays", true, []step{{some, ``, 0}, {`{"distinct": "c", "key": "l"}`, `{"values": [1, 2, 3]}`, 0}}},
		{"count with bounds", true, []step{{some, ``, 0}, {`{"count": "c", "skip": 1, "limit": 1}`, `{"n": 1}`, 0}, {`{"count": "none"}`, `{"n": 0}`, 0}}},
		{"aggregate", true, []step{{some, ``, 0}, {`{"aggregate": "c", "pipeline": [{"$match": {"a": {"$gt": 0}}}, {"$group": {"_id": null, "s": {"$sum": "$a"}}}], "cursor": {}}`, `{"cursor": {"firstBatch": [{"_id": null, "s": 3}]}}`, 0},
			{`{"aggregate": "c", "pipeline": [{"$sort": {"_id": -1}}, {"$skip": 1}, {"$limit": 1}, {"$project": {"a": 1, "_id": 0}}], "cursor": {}}`, `{"cursor": {"firstBatch": [{"a": 2}]}}`, 0},
			{`{"aggregate": "c", "pipeline": [{"$count": "n"}], "cursor": {}}`, `{"cursor": {"firstBatch": [{"n": 3}]}}`, 0}}},
		{"accumulators", false, []step{{some, ``, 0}, {`{"aggregate": "c", "pipeline": [{"$unwind": {"path": "$l", "preserveNullAndEmptyArrays": true}}, {"$sort": {"l": 1}}, {"$group": {"_id": {"$type": "$l"},
				"avg": {"$avg": "$l"}, "min": {"$min": "$l"}, "max": {"$max": "$l"}, "first": {"$first": "$l"}, "last": {"$last": "$l"}, "all": {"$push": "$l"}, "set": {"$addToSet": "$_id"}, "n": {"$count": {}}}},
				{"$match": {"_id": "int"}}, {"$addFields": {"double": {"$multiply": ["$n", 2]}}}, {"$unset": ["_id"]}], "cursor": {}}`,
			`{"cursor": {"firstBatch": [{"avg": 2, "min": 1, "max": 3, "first": 1, "last": 3, "all": [1, 2, 3], "set": [1, 2], "n": 3, "double": 6}]}}`, 0},
			{`{"aggregate": "c", "pipeline": [{"$match": {"_id": 3}}, {"$replaceRoot": {"newRoot": "$b"}}], "cursor": {}}`, `{"cursor": {"firstBatch": [{"c": 5}]}}`, 0},
			{`{"aggregate": "c", "pipeline": [{"$sortByCount": {"$isArray": "$l"}}], "cursor": {}}`, `{"cursor": {"firstBatch": [{"_id": true, "count": 2}, {"_id": false, "count": 1}]}}`, 0},
			{`{"aggregate": "c", "pipeline": [{"$nope": 1}], "cursor": {}}`, ``, 40324}}},
		{"getMore and killCursors", false, []step{{some, ``, 0}, {`{"getMore": {"$numberLong": "12345"}, "collection": "c"}`, ``, 43},
			{`{"killCursors": "c", "cursors": [{"$numberLong": "5"}]}`, `{"cursorsKilled": [], "cursorsNotFound": [5]}`, 0}}},
		{"indexes", true, []step{{`{"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a_1", "unique": true}]}`, `{"numIndexesBefore": 1, "numIndexesAfter": 2}`, 0},
			{`{"insert": "c", "documents": [{"_id": 1, "a": 5}]}`, `{"n": 1}`, 0}, {`{"insert": "c", "documents": [{"_id": 2, "a": 5}]}`, `{"n": 0, "writeErrors": [{"code": 11000}]}`, 0},
			{`{"dropIndexes": "c", "index": "a_1"}`, `{"nIndexesWas": 2}`, 0}, {`{"insert": "c", "documents": [{"_id": 2, "a": 5}]}`, `{"n": 1}`, 0},
			{`{"dropIndexes": "c", "index": "nope"}`, ``, 27}, {`{"dropIndexes": "c", "index": "_id_"}`, ``, 72}}},
		{"unique over data that is not", false, []step{{`{"insert": "c", "documents": [{"_id": 1, "a": 5}, {"_id": 2, "a": 5}]}`, ``, 0},
			{`{"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a_1", "unique": true}]}`, ``, 11000}, {`{"listIndexes": "c"}`, `{"cursor": {"firstBatch": [{"name": "_id_"}]}}`, 0}}},
		{"partial and sparse", false, []step{{`{"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "p", "unique": true, "partialFilterExpression": {"on": true}}, {"key": {"s": 1}, "name": "s", "unique": true, "sparse": true}]}`, ``, 0},
			{`{"insert": "c", "documents": [{"_id": 1, "a": 1}, {"_id": 2, "a": 1}, {"_id": 3, "a": 1, "on": true}, {"_id": 4, "a": 1, "on": true}]}`, `{"n": 3, "writeErrors": [{"index": 3}]}`, 0},
			{`{"update": "c", "updates": [{"q": {"_id": 1}, "u": {"$set": {"on": true}}}]}`, `{"n": 0, "writeErrors": [{"code": 11000, "keyValue": {"a": 1}}]}`, 0}}},
		{"multikey unique", false, []step{{`{"createIndexes": "c", "indexes": [{"key": {"l": 1}, "name": "l", "unique": true}]}`, ``, 0},
			{`{"insert": "c", "documents": [{"_id": 1, "l": [1, 1, 2]}, {"_id": 2, "l": [3, 2]}]}`, `{"n": 1, "writeErrors": [{"index": 1, "keyValue": {"l": 2}}]}`, 0}}},
		{"same name, other keys", false, []step{{`{"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "x"}]}`, ``, 0}, {`{"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "x"}]}`, `{"numIndexesAfter": 2}`, 0},
			{`{"createIndexes": "c", "indexes": [{"key": {"b": 1}, "name": "x"}]}`, ``, 86}, {`{"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "y"}]}`, ``, 85}}},
		{"catalogue", true, []step{{`{"create": "c"}`, ``, 0}, {`{"listCollections": 1, "nameOnly": true}`, `{"cursor": {"firstBatch": [{"name": "c"}]}}`, 0},
			{`{"drop": "c"}`, `{"ns": "conform.c"}`, 0}, {`{"listCollections": 1}`, `{"cursor": {"firstBatch": []}}`, 0}, {`{"listIndexes": "c"}`, ``, 26}}},
		{"rename", false, []step{{some, ``, 0}, {`{"renameCollection": "conform.c", "to": "conform.e"}`, ``, 0}, {`{"count": "e"}`, `{"n": 3}`, 0}, {`{"renameCollection": "conform.c", "to": "conform.e"}`, ``, 26},
			{`{"create": "c"}`, ``, 0}, {`{"renameCollection": "conform.c", "to": "conform.e"}`, ``, 48}, {`{"renameCollection": "conform.c", "to": "conform.e", "dropTarget": true}`, ``, 0}, {`{"count": "e"}`, `{"n": 0}`, 0}}},
		{"collMod", false, []step{{`{"createIndexes": "c", "indexes": [{"key": {"t": 1}, "name": "t", "expireAfterSeconds": 5}]}`, ``, 0}, {`{"collMod": "c", "index": {"name": "t", "expireAfterSeconds": 9}}`, ``, 0},
			{`{"listIndexes": "c"}`, `{"cursor": {"firstBatch": [{"name": "_id_"}, {"name": "t", "expireAfterSeconds": 9}]}}`, 0}}},
		{"refusals", false, []step{{`{"nope": 1}`, ``, 59}, {`{"find": "c", "nope": 1}`, ``, 40415}, {`{"insert": "c", "documents": [{"_id": [1]}]}`, `{"writeErrors": [{"code": 53}]}`, 0},
			{`{"find": "c", "filter": 5}`, ``, 14}, {`{"find": "c", "collation": {"locale": "de"}}`, ``, 238}, {`{"create": "v", "viewOn": "c"}`, ``, 238},
			{`{"aggregate": "c", "pipeline": [{"$out": "x"}], "cursor": {}}`, ``, 238}, {`{"insert": "c", "documents": [{"_id": 1}], "txnNumber": {"$numberLong": "1"}, "lsid": {"id": 1}}`, ``, 20},
			{`{"insert": "c"}`, ``, 40414}, {`{"find": "a$b"}`, ``, 73}}},
		{"let", false, []step{{some, ``, 0}, {`{"find": "c", "filter": {"$expr": {"$eq": ["$a", "$$x"]}}, "let": {"x": 2}}`, `{"cursor": {"firstBatch": [{"_id": 2}]}}`, 0}}},
	}
}

// conform runs every row against a server, each in a database that was dropped before.
func conform(t *testing.T, run runner, ferret bool) {
	ctx := t.Context()
	for _, c := range conformance() {
		if ferret && !c.ferret {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if _, err := run(ctx, "conform", bson.D{e("dropDatabase", 1)}); err != nil {
				t.Fatal(err)
			}
			for i, s := range c.steps {
				if err := s.check(ctx, run); err != nil {
					t.Fatalf("step %d: %s\n%v", i, s.cmd, err)
				}
			}
		})
	}
}

func (s step) check(ctx context.Context, run runner) error {
	var cmd, want bson.D
	if err := bson.UnmarshalExtJSON([]byte(s.cmd), false, &cmd); err != nil {
		return err
	}
	db := "conform"
	if strings.HasPrefix(s.cmd, `{"renameCollection"`) {
		db = "admin"
	}
	reply, err := run(ctx, db, cmd)
	if s.code != 0 || err != nil {
		if got := errorCode(err); got != s.code || err == nil {
			return fmt.Errorf("code %d, want %d: %v %v", got, s.code, err, reply)
		}
		return nil
	}
	if s.want == "" {
		return nil
	}
	if err := bson.UnmarshalExtJSON([]byte(s.want), false, &want); err != nil {
		return err
	}
	if !contains(reply, want) {
		return fmt.Errorf("reply %v\nwant  %v", reply, want)
	}
	return nil
}

// contains says whether got has all that want has; arrays have to be of one length.
func contains(got, want any) bool {
	switch w := want.(type) {
	case bson.D:
		g, ok := got.(bson.D)
		for _, f := range w {
			ok = ok && contains(bsonval.Field(g, f.Key), f.Value)
		}
		return ok
	case bson.A:
		g, ok := got.(bson.A)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			ok = ok && contains(g[i], w[i])
		}
		return ok
	}
	if _, missing := got.(bsonval.Missing); missing {
		return false
	}
	return bsonval.Equal(got, want)
}

// errorCode is the code of an error of Run or of the driver.
func errorCode(err error) int32 {
	if ce := new(mongo.CommandError); errors.As(err, ce) {
		return ce.Code
	}
	return code(err)
}

func TestConformance(t *testing.T) { conform(t, New(Options{}).Run, false) }
