package front

import (
	"errors"
	"io"
	"net"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// FuzzRequest: any document that passed the frame's walk is read or refused with a command's error.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(marshal(f, bson.D{{Key: "find", Value: "c"}, {Key: "$db", Value: "a"}, {Key: "lsid", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: 4, Data: make([]byte, 16)}}}},
		{Key: "txnNumber", Value: int64(3)}, {Key: "stmtIds", Value: bson.A{int32(1)}}, {Key: "maxTimeMS", Value: 5.0},
		{Key: "$readPreference", Value: bson.D{{Key: "mode", Value: "nearest"}, {Key: "tags", Value: bson.A{bson.D{{Key: "pop", Value: "x"}}}}, {Key: "maxStalenessSeconds", Value: 90}}},
		{Key: "readConcern", Value: bson.D{{Key: "level", Value: "local"}, {Key: "afterClusterTime", Value: bson.Timestamp{T: 1}}}},
		{Key: "$clusterTime", Value: bson.D{{Key: "clusterTime", Value: bson.Timestamp{T: 1}}}}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		if wire.CheckDocument(b, wire.DefaultLimits()) != nil {
			return
		}
		var r Request
		var told *wire.CommandError
		if err := r.read(b, ""); err != nil && !errors.As(err, &told) {
			t.Fatal(err)
		}
	})
}

// FuzzStranger: whatever a client sends before it logged in, nothing reaches the handler, and the connection's end is
// orderly.
func FuzzStranger(f *testing.F) {
	for _, d := range []bson.D{{{Key: "hello", Value: 1}, {Key: "compression", Value: bson.A{"zstd"}}, {Key: "speculativeAuthenticate", Value: bson.D{{Key: "saslStart", Value: 1},
		{Key: "mechanism", Value: mechanism}, {Key: "payload", Value: []byte("n,,n=app,r=abc")}, {Key: "db", Value: "admin"}}}, {Key: "$db", Value: "admin"}},
		{{Key: "saslContinue", Value: 1}, {Key: "conversationId", Value: 1}, {Key: "payload", Value: []byte("c=biws,r=abc,p=AAAA")}, {Key: "$db", Value: "admin"}},
		{{Key: "find", Value: "c"}, {Key: "$db", Value: "admin"}}} {
		b, err := wire.AppendMessage(nil, &wire.Message{Op: wire.OpMsg, Body: marshal(f, d)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	h := newToy()
	s, err := New(users(f), h, quiet())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		theirs, ours := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- newConn(s, ours).loop(t.Context()); ours.Close() }()
		go io.Copy(io.Discard, theirs)
		if _, err := theirs.Write(b); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		theirs.Close()
		<-ended
		if len(h.asked) > 0 {
			t.Fatalf("a stranger reached the handler: %+v", h.asked)
		}
	})
}
