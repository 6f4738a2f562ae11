package store

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"popfleet/internal/control"
)

// start runs a store in dir and returns its address and a function that stops it and waits.
func start(t *testing.T, c Config) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- Run(ctx, c, slog.New(slog.DiscardHandler), func(a string) { up <- a }) }()
	select {
	case addr = <-up:
	case err := <-done:
		t.Fatalf("store did not start: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("store did not start within a minute")
	}
	return addr, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("store ended with %v", err)
		}
	}
}

func TestWritesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	c := Config{Listen: "127.0.0.1:0", Dir: filepath.Join(dir, "data"), Control: filepath.Join(dir, "c.sock")}
	addr, stop := start(t, c)
	with(t, addr, func(ctx context.Context, comments *mongo.Collection) {
		if _, err := comments.InsertOne(ctx, bson.M{"_id": "a", "votes": 0}); err != nil {
			t.Fatal(err)
		}
		if _, err := comments.UpdateOne(ctx, bson.M{"_id": "a"}, bson.M{"$inc": bson.M{"votes": 2}}); err != nil {
			t.Fatal(err)
		}
	})
	stop()
	addr, stop = start(t, c)
	defer stop()
	with(t, addr, func(ctx context.Context, comments *mongo.Collection) {
		var got struct{ Votes int }
		if err := comments.FindOne(ctx, bson.M{"_id": "a"}).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Votes != 2 {
			t.Errorf("votes after the restart: %d, want 2", got.Votes)
		}
	})
}

func TestControlSocket(t *testing.T) {
	dir := t.TempDir()
	c := Config{Listen: "127.0.0.1:0", Dir: filepath.Join(dir, "data"), Control: filepath.Join(dir, "c.sock")}
	_, stop := start(t, c)
	defer stop()
	client := control.Dial(c.Control)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// The socket opens just after the database does.
	for {
		h, err := client.Health(ctx)
		if err == nil && h.OK {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("never healthy: %+v %v", h, err)
		}
	}
	if s, err := client.Drain(ctx); err != nil || s.State != control.Drained {
		t.Errorf("drain answered %+v, %v", s, err)
	}
}

func TestPingRefusesWhatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := ping(ctx, "127.0.0.1:1"); err == nil {
		t.Error("a closed port counted as healthy")
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	err := Config{Listen: "0.0.0.0:27018", Dir: "data", Control: "c"}.Validate()
	for _, want := range []string{"loopback", "dir", "control"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func with(t *testing.T, addr string, f func(context.Context, *mongo.Collection)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(ctx)
	f(ctx, client.Database("test").Collection("comments"))
}
