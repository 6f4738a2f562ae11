package mongosim

import (
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"popfleet/replication/wire"
)

const benchDocs = 10_000

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func fill(b *testing.B, s *Backend) {
	for from := 0; from < benchDocs; from += 1000 {
		docs := bson.A{}
		for i := range 1000 {
			docs = append(docs, bson.D{e("_id", int32(from+i)), e("v", int64(0)), e("text", "a comment of some length, as people write them under an article"), e("at", time.Now())})
		}
		must(b, s, bson.D{e("insert", "c"), e("documents", docs)})
	}
}

var benchCommands = []struct {
	name string
	make func(id int32) bson.D
}{
	{"find", func(id int32) bson.D {
		return bson.D{e("find", "c"), e("filter", bson.D{e("_id", id)}), e("limit", 1), e("singleBatch", true), e("$db", "d")}
	}},
	{"update", func(id int32) bson.D {
		return bson.D{e("update", "c"), e("updates", bson.A{bson.D{e("q", bson.D{e("_id", id)}), e("u", bson.D{e("$inc", bson.D{e("v", int64(1))})})}}), e("$db", "d")}
	}},
}

// BenchmarkRaw sends ready frames over one loopback connection; cpu-µs/op is all of the process, so client and server.
func BenchmarkRaw(b *testing.B) {
	for _, c := range benchCommands {
		b.Run(c.name, func(b *testing.B) {
			s, address := serve(b, Options{})
			fill(b, s)
			conn := dial(b, address)
			in, out := wire.NewReader(conn, wire.DefaultLimits(), nil), wire.NewWriter(conn, nil)
			bodies := make([]bson.Raw, 1024)
			for i := range bodies {
				bodies[i], _ = bson.Marshal(c.make(rand.Int32N(benchDocs)))
			}
			measure(b, func(i int) error {
				if err := out.Write(&wire.Message{Op: wire.OpMsg, RequestID: int32(i), Body: bodies[i%len(bodies)]}); err != nil {
					return err
				}
				m, err := in.Read()
				if err != nil {
					return err
				}
				return wire.ReplyError(m.Body)
			})
		})
	}
}

// BenchmarkCommand is what the server does without sockets: decode, do, encode.
func BenchmarkCommand(b *testing.B) {
	for _, c := range benchCommands {
		b.Run(c.name, func(b *testing.B) {
			s := New(Options{})
			fill(b, s)
			bodies := make([]bson.Raw, 1024)
			for i := range bodies {
				bodies[i], _ = bson.Marshal(c.make(rand.Int32N(benchDocs)))
			}
			measure(b, func(i int) error {
				_, err := s.reply(b.Context(), &wire.Message{Op: wire.OpMsg, Body: bodies[i%len(bodies)]})
				return err
			})
		})
	}
}

// BenchmarkDriver is the official driver against the server, with one and with sixteen clients.
func BenchmarkDriver(b *testing.B) {
	for _, clients := range []int{1, 16} {
		for _, name := range []string{"find", "update"} {
			b.Run(fmt.Sprintf("%s/%d", name, clients), func(b *testing.B) {
				s, address := serve(b, Options{})
				fill(b, s)
				coll := connect(b, address, "directConnection=true").Database("d").Collection("c")
				b.SetParallelism(max(1, clients/2))
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := driverOp(b, coll, name); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

func driverOp(b *testing.B, coll *mongo.Collection, name string) error {
	id := bson.D{e("_id", rand.Int32N(benchDocs))}
	if name == "find" {
		return coll.FindOne(b.Context(), id).Err()
	}
	_, err := coll.UpdateOne(b.Context(), id, bson.D{e("$inc", bson.D{e("v", int64(1))})})
	return err
}

// measure also reports the processor time, which a busy machine does not distort as it does the clock.
func measure(b *testing.B, op func(i int) error) {
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for i := range b.N {
		if err := op(i); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
