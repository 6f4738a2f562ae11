package mongosim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"popfleet/replication/mongosim/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func e(k string, v any) bson.E { return bson.E{Key: k, Value: v} }

// serve starts a backend on a port of its own and returns its address.
func serve(t testing.TB, o Options) (*Backend, string) {
	t.Helper()
	b := New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b, l.Addr().String()
}

func connect(t testing.TB, address, query string) *mongo.Client {
	t.Helper()
	o := options.Client().ApplyURI("mongodb://" + address + "/?" + query).SetServerSelectionTimeout(10 * time.Second)
	c, err := mongo.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect(context.Background()) })
	return c
}

// The official driver finds the member by hello and does what applications do.
func TestOfficialDriver(t *testing.T) {
	for name, query := range map[string]string{"replica set": "replicaSet=sim", "direct": "directConnection=true",
		"compressed": "replicaSet=sim&compressors=zstd,snappy,zlib"} {
		t.Run(name, func(t *testing.T) {
			_, address := serve(t, Options{ReplicaSet: "sim", WireVersion: WireVersion80})
			driverTour(t, connect(t, address, query))
		})
	}
}

func driverTour(t *testing.T, client *mongo.Client) {
	ctx := t.Context()
	c := client.Database("d").Collection("c")
	if _, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{e("n", 1)}, Options: options.Index().SetUnique(true)}); err != nil {
		t.Fatal(err)
	}
	docs := make([]any, 1000)
	for i := range docs {
		docs[i] = bson.D{e("_id", i), e("n", i), e("tags", bson.A{"a", fmt.Sprint(i % 7)})}
	}
	if r, err := c.InsertMany(ctx, docs); err != nil || len(r.InsertedIDs) != 1000 {
		t.Fatal(r, err)
	}
	if _, err := c.InsertOne(ctx, bson.D{e("n", 5)}); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("duplicate: %v", err)
	}
	cur, err := c.Find(ctx, bson.D{e("tags", "3")}, options.Find().SetSort(bson.D{e("n", -1)}).SetBatchSize(10).SetProjection(bson.D{e("n", 1)}))
	if err != nil {
		t.Fatal(err)
	}
	var found []struct{ N int }
	if err := cur.All(ctx, &found); err != nil || len(found) != 143 || found[0].N != 997 {
		t.Errorf("find: %d documents, first %v, %v", len(found), found[:1], err)
	}
	up, err := c.UpdateOne(ctx, bson.D{e("_id", 5)}, bson.D{e("$inc", bson.D{e("votes", 2)}), e("$push", bson.D{e("tags", "x")})})
	if err != nil || up.MatchedCount != 1 || up.ModifiedCount != 1 {
		t.Errorf("update: %+v, %v", up, err)
	}
	up, err = c.UpdateMany(ctx, bson.D{e("n", bson.D{e("$lt", 10)})}, bson.A{bson.D{e("$set", bson.D{e("twice", bson.D{e("$multiply", bson.A{"$n", 2})})})}})
	if err != nil || up.MatchedCount != 10 {
		t.Errorf("update by pipeline: %+v, %v", up, err)
	}
	up, err = c.UpdateOne(ctx, bson.D{e("_id", "new")}, bson.D{e("$set", bson.D{e("n", -1)})}, options.UpdateOne().SetUpsert(true))
	if err != nil || up.UpsertedID != "new" {
		t.Errorf("upsert: %+v, %v", up, err)
	}
	var after struct{ Votes int }
	err = c.FindOneAndUpdate(ctx, bson.D{e("_id", 5)}, bson.D{e("$inc", bson.D{e("votes", 1)})},
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&after)
	if err != nil || after.Votes != 3 {
		t.Errorf("findAndModify: %+v, %v", after, err)
	}
	if n, err := c.CountDocuments(ctx, bson.D{e("n", bson.D{e("$gte", 500)})}); err != nil || n != 500 {
		t.Errorf("count: %d, %v", n, err)
	}
	agg, err := c.Aggregate(ctx, bson.A{bson.D{e("$match", bson.D{e("n", bson.D{e("$gte", 0)})})}, bson.D{e("$unwind", "$tags")},
		bson.D{e("$group", bson.D{e("_id", "$tags"), e("n", bson.D{e("$sum", 1)})})}, bson.D{e("$sort", bson.D{e("_id", 1)})}})
	if err != nil {
		t.Fatal(err)
	}
	var groups []struct {
		ID string `bson:"_id"`
		N  int
	}
	if err := agg.All(ctx, &groups); err != nil || len(groups) != 9 || groups[0].N != 143 || groups[7].ID != "a" || groups[7].N != 1000 {
		t.Errorf("aggregate: %+v, %v", groups, err)
	}
	if del, err := c.DeleteMany(ctx, bson.D{e("n", bson.D{e("$lt", 100)})}); err != nil || del.DeletedCount != 101 {
		t.Errorf("delete: %+v, %v", del, err)
	}
	if names, err := client.Database("d").ListCollectionNames(ctx, bson.D{}); err != nil || len(names) != 1 {
		t.Errorf("collections: %v, %v", names, err)
	}
	if err := client.Database("d").Drop(ctx); err != nil {
		t.Error(err)
	}
	driverBulk(t, client)
}

func driverBulk(t *testing.T, client *mongo.Client) {
	r, err := client.BulkWrite(t.Context(), []mongo.ClientBulkWrite{
		{Database: "d", Collection: "a", Model: mongo.NewClientInsertOneModel().SetDocument(bson.D{e("_id", 1), e("v", 1)})},
		{Database: "d", Collection: "b", Model: mongo.NewClientUpdateOneModel().SetFilter(bson.D{e("_id", 2)}).
			SetUpdate(bson.D{e("$set", bson.D{e("v", 2)})}).SetUpsert(true)},
		{Database: "d", Collection: "a", Model: mongo.NewClientUpdateManyModel().SetFilter(bson.D{}).SetUpdate(bson.D{e("$inc", bson.D{e("v", 1)})})},
		{Database: "d", Collection: "a", Model: mongo.NewClientDeleteManyModel().SetFilter(bson.D{e("v", 2)})},
	}, options.ClientBulkWrite().SetVerboseResults(true))
	if err != nil || r.InsertedCount != 1 || r.UpsertedCount != 1 || r.ModifiedCount != 1 || r.DeletedCount != 1 {
		t.Errorf("bulk write: %+v, %v", r, err)
	}
}

// What a driver does with a lost reply, a failover and a killed server: each retried write happens once.
func TestDriverRetriesOnce(t *testing.T) {
	b, address := serve(t, Options{ReplicaSet: "sim"})
	c := connect(t, address, "replicaSet=sim&retryWrites=true").Database("d").Collection("c")
	ctx := t.Context()
	if _, err := c.InsertOne(ctx, bson.D{e("_id", 1), e("v", 0)}); err != nil {
		t.Fatal(err)
	}
	inc := bson.D{e("$inc", bson.D{e("v", 1)})}
	for i, r := range []fault.Rule{
		{Point: fault.Replying, Command: "update", Times: 1, Do: fault.Cut()},
		{Point: fault.Received, Command: "update", Times: 1, Do: fault.Cut()},
		{Point: fault.Applied, Command: "update", Times: 1, Do: fault.Cut()},
		{Point: fault.Received, Command: "update", Times: 1, Do: fault.Fail(failure(codeNotPrimary, "not primary"))},
		{Point: fault.Received, Command: "update", Times: 1, Do: fault.Duplicate()},
	} {
		b.Faults().Add(r)
		if _, err := c.UpdateOne(ctx, bson.D{e("_id", 1)}, inc); err != nil {
			t.Fatalf("rule %d: %v", i, err)
		}
	}
	for _, w := range b.Faults().Waiting() {
		if _, err := w.Land(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var got struct{ V int }
	if err := c.FindOne(ctx, bson.D{e("_id", 1)}).Decode(&got); err != nil || got.V != 5 {
		t.Errorf("v = %d, %v; want 5", got.V, err)
	}
	b.Faults().Failover()
	if _, err := c.UpdateOne(ctx, bson.D{e("_id", 1)}, inc); err != nil {
		t.Error(err)
	}
	b.Faults().PowerCut()
	b.Faults().Start()
	if err := c.FindOne(ctx, bson.D{e("_id", 1)}).Decode(&got); err != nil || got.V != 6 {
		t.Errorf("after failover and power cut v = %d, %v; want 6", got.V, err)
	}
}

func TestStandAloneHasNoRetries(t *testing.T) {
	_, address := serve(t, Options{})
	c := connect(t, address, "directConnection=true").Database("d").Collection("c")
	_, err := c.InsertOne(t.Context(), bson.D{e("_id", 1)})
	if err != nil {
		t.Fatal(err) // a driver that knows a stand-alone server sends no txnNumber
	}
	if _, err = c.Watch(t.Context(), bson.A{}); err == nil {
		t.Error("a change stream opened")
	}
	var ce mongo.CommandError
	if !errors.As(err, &ce) || ce.Code != codeChangeStream {
		t.Errorf("change stream: %v", err)
	}
}
