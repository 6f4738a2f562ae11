package wire

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// update is what a driver sends for a small $inc: about 250 bytes.
func update(t testing.TB) Message {
	return Message{Op: OpMsg, RequestID: 1,
		Body: raw(t, bson.D{{Key: "update", Value: "comments"}, {Key: "ordered", Value: true}, {Key: "lsid", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: 4, Data: make([]byte, 16)}}}},
			{Key: "txnNumber", Value: int64(7)}, {Key: "$db", Value: "app"}}),
		Sequences: []Sequence{NewSequence("updates", raw(t, bson.D{{Key: "q", Value: bson.D{{Key: "_id", Value: bson.ObjectID{1}}}},
			{Key: "u", Value: bson.D{{Key: "$inc", Value: bson.D{{Key: "votes", Value: int32(1)}}}, {Key: "$set", Value: bson.D{{Key: "text", Value: strings.Repeat("x", 40)}}}}}}))}}
}

// loop gives the same bytes for ever.
type loop struct {
	b  []byte
	at int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.b[l.at:])
	l.at = (l.at + n) % len(l.b)
	return n, nil
}

func BenchmarkRead(b *testing.B) {
	batch := NewSequence("documents", func() (docs []bson.Raw) {
		for i := range 1000 {
			docs = append(docs, raw(b, bson.D{{Key: "_id", Value: int32(i)}, {Key: "text", Value: strings.Repeat("y", 80)}, {Key: "votes", Value: int64(i)}}))
		}
		return docs
	}()...)
	sum := update(b)
	sum.Flags = ChecksumPresent
	for name, m := range map[string]Message{"update": update(b), "update-checksum": sum,
		"insert-1000": {Op: OpMsg, Body: raw(b, bson.D{{Key: "insert", Value: "c"}, {Key: "$db", Value: "app"}}), Sequences: []Sequence{batch}}} {
		b.Run(name, func(b *testing.B) { benchRead(b, m, Uncompressed) })
	}
	for _, with := range Compressors() {
		b.Run("update-"+with.String(), func(b *testing.B) { benchRead(b, update(b), with) })
	}
}

func benchRead(b *testing.B, m Message, with Compressor) {
	codec, err := NewCodec()
	if err != nil {
		b.Fatal(err)
	}
	m.Compressor = with
	var stream bytes.Buffer
	if err := NewWriter(&stream, codec).Write(&m); err != nil {
		b.Fatal(err)
	}
	r := NewReader(&loop{b: stream.Bytes()}, DefaultLimits(), codec)
	r.Allow(Compressors()...)
	b.SetBytes(int64(stream.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, with := range append(Compressors(), Uncompressed) {
		b.Run(with.String(), func(b *testing.B) {
			codec, err := NewCodec()
			if err != nil {
				b.Fatal(err)
			}
			m := update(b)
			m.Compressor = with
			w := NewWriter(io.Discard, codec)
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(&m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A message on its way through costs no memory once the connection's own is large enough.
func TestReadingAndWritingAllocateNothing(t *testing.T) {
	m := update(t)
	var stream bytes.Buffer
	if err := NewWriter(&stream, nil).Write(&m); err != nil {
		t.Fatal(err)
	}
	r, w := NewReader(&loop{b: stream.Bytes()}, DefaultLimits(), nil), NewWriter(io.Discard, nil)
	n := testing.AllocsPerRun(1000, func() {
		got, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(&got); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations a message", n)
	}
}
