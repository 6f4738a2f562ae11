package front

import (
	"context"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// still answers everything with the same bytes.
type still struct{ body bson.Raw }

func (s still) Handle(context.Context, *Request) (Reply, error) { return Reply{Body: s.body}, nil }

func smallUpdate(t testing.TB) wire.Message {
	return wire.Message{Op: wire.OpMsg, RequestID: 1,
		Body: marshal(t, bson.D{{Key: "update", Value: "c"}, {Key: "ordered", Value: true}, {Key: "$db", Value: "app"}, {Key: "txnNumber", Value: int64(7)},
			{Key: "lsid", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: 4, Data: make([]byte, 16)}}}}}),
		Sequences: []wire.Sequence{wire.NewSequence("updates", marshal(t, bson.D{{Key: "q", Value: bson.D{{Key: "_id", Value: 1}}},
			{Key: "u", Value: bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}}}}))}}
}

// BenchmarkRoundTrip is a command and its answer over loopback, with nothing behind.
func BenchmarkRoundTrip(b *testing.B) {
	_, address, _, _ := serveToy(b, open(), still{marshal(b, bson.D{{Key: "n", Value: int32(1)}, {Key: "ok", Value: 1.0}})}, quiet())
	p := dial(b, address)
	m := smallUpdate(b)
	out := wire.NewWriter(p, nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := out.Write(&m); err != nil {
			b.Fatal(err)
		}
		if _, err := p.in.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkServe is the same without the network: what a command costs here.
func BenchmarkServe(b *testing.B) {
	s, err := New(open(), still{marshal(b, bson.D{{Key: "n", Value: int32(1)}, {Key: "ok", Value: 1.0}})}, quiet())
	if err != nil {
		b.Fatal(err)
	}
	_, ours := pipe(b)
	c := newConn(s, ours)
	c.out = wire.NewWriter(discard{}, nil)
	m := smallUpdate(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.serve(b.Context(), &m); err != nil {
			b.Fatal(err)
		}
	}
}
