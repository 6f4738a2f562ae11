// Package database keeps threads and comments in MongoDB, or in whatever speaks its wire protocol: it is written for
// what FerretDB offers, so no transactions, no change streams, no pipeline updates. Every write is one single-document
// command whose repetition does no harm, but for a vote. It never retries a write by itself; when the store is away,
// calls fail within [callTimeout] and succeed again when it is back.
package database

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"popfleet/examples/comments/board"
)

const (
	callTimeout      = 8 * time.Second
	selectionTimeout = 4 * time.Second
	stripes          = 64
)

// DB is an open database; methods may be called from many goroutines.
type DB struct {
	client   *mongo.Client
	threads  *mongo.Collection
	comments *mongo.Collection

	// One writer per document: FerretDB reads a document, changes it and writes it back whole, so of two $inc at the same
	// time one is lost without an error. One app per store is all there is until the replicator takes that lock itself.
	seed  maphash.Seed
	locks [stripes]sync.Mutex
}

// Open makes a client for the database; it connects on the first call, so the store may come later.
func Open(uri, name string) (*DB, error) {
	o := options.Client().ApplyURI(uri).SetAppName("comments").SetServerSelectionTimeout(selectionTimeout).
		SetConnectTimeout(selectionTimeout).SetRetryWrites(false).SetMaxPoolSize(32)
	client, err := mongo.Connect(o)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d := client.Database(name)
	return &DB{client: client, threads: d.Collection("threads"), comments: d.Collection("comments"), seed: maphash.MakeSeed()}, nil
}

// Close lets running calls finish, bounded by ctx.
func (d *DB) Close(ctx context.Context) error {
	if err := d.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

// Ping asks the store whether it answers.
func (d *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, selectionTimeout)
	defer cancel()
	if err := d.client.Ping(ctx, nil); err != nil {
		return fmt.Errorf("ping store: %w", err)
	}
	return nil
}

// Prepare creates the indexes that are not there yet.
func (d *DB) Prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, c := range []struct {
		in   *mongo.Collection
		keys []bson.D
	}{
		{d.threads, []bson.D{{{Key: "activeAt", Value: -1}, {Key: "_id", Value: -1}}, {{Key: "changedAt", Value: -1}}}},
		{d.comments, []bson.D{
			{{Key: "thread", Value: 1}, {Key: "createdAt", Value: -1}, {Key: "_id", Value: -1}},
			{{Key: "thread", Value: 1}, {Key: "changedAt", Value: -1}},
		}},
	} {
		for _, k := range c.keys {
			// One command each: FerretDB 1.24 panics over a command with two indexes that are both there already.
			if _, err := c.in.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: k}); err != nil {
				return fmt.Errorf("create indexes of %s: %w", c.in.Name(), err)
			}
		}
	}
	return nil
}

// document is what lies in a collection: the board's value, and when it last changed, which only looks for changes read.
type document[T any] struct {
	Value     T         `bson:",inline"`
	ChangedAt time.Time `bson:"changedAt"`
}

// insert adds v; of a document that is there already under the same name it returns that one.
func insert[T any](ctx context.Context, in *mongo.Collection, id string, v T) (kept T, fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = in.InsertOne(ctx, document[T]{Value: v, ChangedAt: time.Now().UTC()})
	switch {
	case mongo.IsDuplicateKeyError(err):
		kept, err = get[T](ctx, in, id)
		return kept, false, err
	case err != nil:
		return v, false, fmt.Errorf("insert into %s: %w", in.Name(), err)
	}
	return v, true, nil
}

func get[T any](ctx context.Context, in *mongo.Collection, id string) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d document[T]
	err := in.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Decode(&d)
	return d.Value, wrap("read", in, err)
}

// change applies update to the document called id and returns it as it is then.
func change[T any](ctx context.Context, d *DB, in *mongo.Collection, id string, update bson.D) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	lock := &d.locks[maphash.String(d.seed, id)%stripes]
	lock.Lock()
	defer lock.Unlock()
	var doc document[T]
	o := options.FindOneAndUpdate().SetReturnDocument(options.After)
	err := in.FindOneAndUpdate(ctx, bson.D{{Key: "_id", Value: id}}, update, o).Decode(&doc)
	return doc.Value, wrap("update", in, err)
}

// list reads at most limit documents.
func list[T any](ctx context.Context, in *mongo.Collection, filter, sort bson.D, limit int) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cursor, err := in.Find(ctx, filter, options.Find().SetSort(sort).SetLimit(int64(limit)))
	if err != nil {
		return nil, wrap("list", in, err)
	}
	var docs []document[T]
	if err := cursor.All(ctx, &docs); err != nil {
		return nil, wrap("list", in, err)
	}
	values := make([]T, len(docs))
	for i, doc := range docs {
		values[i] = doc.Value
	}
	return values, nil
}

// before is the filter for what comes after the cursor in a list that descends by field, then by name.
func before(field string, c board.Cursor) bson.D {
	if c.ID == "" {
		return nil
	}
	return bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: field, Value: bson.D{{Key: "$lt", Value: c.At}}}},
		bson.D{{Key: field, Value: c.At}, {Key: "_id", Value: bson.D{{Key: "$lt", Value: c.ID}}}},
	}}}
}

func descending(field string) bson.D {
	return bson.D{{Key: field, Value: -1}, {Key: "_id", Value: -1}}
}

func wrap(verb string, in *mongo.Collection, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mongo.ErrNoDocuments):
		return board.ErrNotFound
	}
	return fmt.Errorf("%s %s: %w", verb, in.Name(), err)
}
