package back

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// BenchmarkDo is a command and its answer over loopback, with nothing behind; the other end is front.
func BenchmarkDo(b *testing.B) {
	p := pool(b, start(b, &backend{}, anyone()), nil)
	c := command(b, bson.D{{Key: "ping", Value: 1}})
	b.ReportAllocs()
	for b.Loop() {
		r, err := p.Do(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		r.Release()
	}
}
