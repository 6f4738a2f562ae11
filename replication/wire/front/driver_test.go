package front

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"popfleet/replication/wire"
)

func connect(t *testing.T, uri string, more ...*options.ClientOptions) (context.Context, *mongo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	all := append([]*options.ClientOptions{options.Client().ApplyURI(uri).SetServerSelectionTimeout(20 * time.Second)}, more...)
	client, err := mongo.Connect(all...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Disconnect(ctx); err != nil {
			t.Errorf("disconnect: %v", err)
		}
		cancel()
	})
	return ctx, client
}

func TestDriverWithEachCompressor(t *testing.T) {
	for _, name := range []string{"none", "snappy", "zlib", "zstd", "zlib,snappy,zstd"} {
		t.Run(name, func(t *testing.T) {
			h := newToy()
			_, address, _, _ := serveToy(t, open(), h, quiet())
			uri := "mongodb://" + address
			if name != "none" {
				uri += "/?compressors=" + name
			}
			ctx, client := connect(t, uri)
			c := client.Database("app").Collection("c")
			var docs []any
			for i := range 7 {
				docs = append(docs, bson.D{{Key: "_id", Value: int32(i)}, {Key: "text", Value: strings.Repeat("text ", 500)}})
			}
			if _, err := c.InsertMany(ctx, docs); err != nil {
				t.Fatal(err)
			}
			cursor, err := c.Find(ctx, bson.D{}, options.Find().SetBatchSize(2))
			if err != nil {
				t.Fatal(err)
			}
			var back []bson.D
			if err := cursor.All(ctx, &back); err != nil || len(back) != 7 {
				t.Fatalf("%d documents, %v", len(back), err)
			}
			if n := len(h.of("getMore")); n != 3 {
				t.Errorf("%d getMore, expected 3", n)
			}
		})
	}
}

func TestDriverKillsItsCursor(t *testing.T) {
	h := newToy()
	_, address, _, _ := serveToy(t, open(), h, quiet())
	ctx, client := connect(t, "mongodb://"+address)
	c := client.Database("app").Collection("c")
	if _, err := c.InsertMany(ctx, []any{bson.D{}, bson.D{}, bson.D{}}); err != nil {
		t.Fatal(err)
	}
	cursor, err := c.Find(ctx, bson.D{}, options.Find().SetBatchSize(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := cursor.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if len(h.of("killCursors")) != 1 || len(h.cursors) != 0 {
		t.Errorf("left open: %v", h.cursors)
	}
}

// As a mongos we get retryable writes; a standalone would not.
func TestDriverRetriesWrites(t *testing.T) {
	h := newToy()
	h.fail["insert"] = []error{&wire.CommandError{Code: wire.CodeShutdownInProgress, Name: "ShutdownInProgress", Message: "later", Labels: []string{"RetryableWriteError"}}}
	_, address, _, _ := serveToy(t, open(), h, quiet())
	ctx, client := connect(t, "mongodb://"+address)
	if _, err := client.Database("app").Collection("c").InsertOne(ctx, bson.D{{Key: "a", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	tries := h.of("insert")
	if len(tries) != 2 || len(h.docs) != 1 {
		t.Fatalf("%d tries, %d documents", len(tries), len(h.docs))
	}
	first, second := tries[0].Session, tries[1].Session
	if !first.Given || !first.Retryable || first.InTransaction || first.ID != second.ID || first.TxnNumber != second.TxnNumber {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

func TestDriverSessionsAreCausal(t *testing.T) {
	h := newToy()
	_, address, _, _ := serveToy(t, open(), h, quiet())
	ctx, client := connect(t, "mongodb://"+address)
	err := client.UseSession(ctx, func(ctx context.Context) error {
		c := client.Database("app").Collection("c")
		if _, err := c.InsertOne(ctx, bson.D{}); err != nil {
			return err
		}
		_, err := c.Find(ctx, bson.D{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	insert, find := h.of("insert")[0], h.of("find")[0]
	if insert.Session.ID != find.Session.ID || find.Session.Retryable {
		t.Errorf("sessions %+v and %+v", insert.Session, find.Session)
	}
	want := bson.Timestamp{T: 77, I: 1}
	if find.ReadConcern.AfterClusterTime != want || find.ClusterTime != want {
		t.Errorf("after %v, cluster time %v; expected %v", find.ReadConcern.AfterClusterTime, find.ClusterTime, want)
	}
}

func TestDriverTransactionIsSeen(t *testing.T) {
	h := newToy()
	_, address, _, _ := serveToy(t, open(), h, quiet())
	ctx, client := connect(t, "mongodb://"+address)
	session, err := client.StartSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.EndSession(ctx)
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		return client.Database("app").Collection("c").InsertOne(ctx, bson.D{})
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := h.of("insert")[0].Session; !s.InTransaction || !s.StartTransaction || s.Retryable {
		t.Errorf("%+v", s)
	}
}

func TestDriverReadPreferenceArrives(t *testing.T) {
	h := newToy()
	_, address, _, _ := serveToy(t, open(), h, quiet())
	nearest, err := readpref.New(readpref.NearestMode, readpref.WithTags("pop", "fsn"), readpref.WithMaxStaleness(120*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ctx, client := connect(t, "mongodb://"+address)
	limited, cancel := context.WithTimeout(ctx, 50*time.Second)
	defer cancel()
	c := client.Database("app").Collection("c", options.Collection().SetReadPreference(nearest))
	if _, err := c.Find(limited, bson.D{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Database("app").Collection("c").Find(ctx, bson.D{}); err != nil {
		t.Fatal(err)
	}
	asked := h.of("find")
	p := asked[0].ReadPreference
	if p.Mode != Nearest || p.MaxStaleness != 120*time.Second || len(p.Tags) != 1 || p.Tags[0].Lookup("pop").StringValue() != "fsn" {
		t.Errorf("%+v", p)
	}
	if asked[1].ReadPreference.Mode != Primary {
		t.Errorf("not given: %+v", asked[1].ReadPreference)
	}
}

func TestDriverWritesWithoutReply(t *testing.T) {
	h := newToy()
	h.heard = make(chan string, 100)
	_, address, _, _ := serveToy(t, open(), h, quiet())
	ctx, client := connect(t, "mongodb://"+address, options.Client().SetMaxPoolSize(1))
	c := client.Database("app").Collection("c", options.Collection().SetWriteConcern(writeconcern.Unacknowledged()))
	for range 3 {
		if _, err := c.InsertOne(ctx, bson.D{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		<-h.heard
	}
	if err := client.Database("app").RunCommand(ctx, bson.D{{Key: "find", Value: "c"}}).Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range h.of("insert") {
		if !r.NoReply {
			t.Errorf("%+v", r)
		}
	}
}

func TestDriverLogsIn(t *testing.T) {
	h := newToy()
	s, address, _, _ := serveToy(t, users(t), h, quiet())
	for _, mechanisms := range []string{"", "&authMechanism=SCRAM-SHA-256"} {
		ctx, client := connect(t, "mongodb://app:pencil@"+address+"/?authSource=admin"+mechanisms)
		if _, err := client.Database("app").Collection("c").InsertOne(ctx, bson.D{}); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.of("insert")[0]; r.Client.User != "app" {
		t.Errorf("%+v", r.Client)
	}
	if n := s.Counters().AuthFailed; n != 0 {
		t.Errorf("%d logins failed", n)
	}
}

func TestDriverWithWrongPasswordIsRefused(t *testing.T) {
	var lines bytes.Buffer
	h := newToy()
	s, address, _, _ := serveToy(t, users(t), h, slog.New(slog.NewTextHandler(&lockedBuffer{b: &lines}, nil)))
	for _, uri := range []string{"mongodb://app:eraser@" + address, "mongodb://nobody:pencil@" + address, "mongodb://app:pencil@" + address + "/?authSource=other",
		"mongodb://app:pencil@" + address + "/?authMechanism=SCRAM-SHA-1"} {
		ctx, client := connect(t, uri)
		_, err := client.Database("app").Collection("c").InsertOne(ctx, bson.D{})
		if err == nil || !strings.Contains(err.Error(), "auth error") {
			t.Errorf("%s: %v", uri, err)
		}
	}
	ctx, client := connect(t, "mongodb://"+address)
	_, err := client.Database("app").Collection("c").InsertOne(ctx, bson.D{})
	var refused mongo.CommandError
	if !errors.As(err, &refused) || refused.Code != wire.CodeUnauthorized {
		t.Errorf("without a login: %v", err)
	}
	if s.Counters().AuthFailed < 3 || len(h.of("insert")) != 0 {
		t.Errorf("%+v", s.Counters())
	}
}
