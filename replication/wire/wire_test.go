package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func raw(t testing.TB, v any) bson.Raw {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encode(t testing.TB, m Message) []byte {
	t.Helper()
	b, err := AppendMessage(nil, &m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everyType has one value of each BSON type.
func everyType() bson.D {
	return bson.D{{Key: "double", Value: 1.5}, {Key: "string", Value: "text"}, {Key: "document", Value: bson.D{{Key: "a", Value: bson.D{}}}}, {Key: "array", Value: bson.A{int32(1), "two"}},
		{Key: "binary", Value: bson.Binary{Subtype: 4, Data: []byte{1, 2}}}, {Key: "old", Value: bson.Binary{Subtype: 2, Data: []byte{1, 2}}},
		{Key: "undefined", Value: bson.Undefined{}}, {Key: "id", Value: bson.ObjectID{1}}, {Key: "bool", Value: true}, {Key: "date", Value: bson.DateTime(5)}, {Key: "null", Value: nil},
		{Key: "regex", Value: bson.Regex{Pattern: "^a", Options: "i"}}, {Key: "pointer", Value: bson.DBPointer{DB: "d", Pointer: bson.ObjectID{2}}},
		{Key: "js", Value: bson.JavaScript("f()")}, {Key: "symbol", Value: bson.Symbol("s")}, {Key: "scope", Value: bson.CodeWithScope{Code: "g()", Scope: bson.D{{Key: "x", Value: int32(1)}}}},
		{Key: "int", Value: int32(7)}, {Key: "timestamp", Value: bson.Timestamp{T: 1, I: 2}}, {Key: "long", Value: int64(8)}, {Key: "decimal", Value: bson.NewDecimal128(1, 2)},
		{Key: "min", Value: bson.MinKey{}}, {Key: "max", Value: bson.MaxKey{}}}
}

func messages(t testing.TB) map[string]Message {
	body := raw(t, bson.D{{Key: "insert", Value: "c"}, {Key: "$db", Value: "d"}})
	one, two := raw(t, bson.D{{Key: "_id", Value: int32(1)}}), raw(t, everyType())
	return map[string]Message{
		"body":     {Op: OpMsg, RequestID: 7, ResponseTo: 3, Body: body},
		"types":    {Op: OpMsg, Body: two},
		"sequence": {Op: OpMsg, Body: body, Sequences: []Sequence{NewSequence("documents", one, two), NewSequence("other")}},
		"checksum": {Op: OpMsg, Flags: ChecksumPresent | ExhaustAllowed, Body: body, Sequences: []Sequence{NewSequence("updates", one)}},
		"no reply": {Op: OpMsg, Flags: MoreToCome, Body: body},
		"query":    {Op: OpQuery, Body: body, Query: &Query{Flags: 4, Collection: "admin.$cmd", Return: -1}},
		"fields":   {Op: OpQuery, Body: body, Query: &Query{Collection: "admin.$cmd", Fields: one}},
		"reply":    {Op: OpReply, ResponseTo: 9, Body: one, Reply: &Reply{Flags: AwaitCapable, CursorID: 1 << 40, Documents: []bson.Raw{one, two}}},
	}
}

func TestMessagesComeBack(t *testing.T) {
	for name, want := range messages(t) {
		t.Run(name, func(t *testing.T) {
			got, err := ReadMessage(bytes.NewReader(encode(t, want)), DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, got)
		})
	}
}

func same(t testing.TB, want, got Message) {
	t.Helper()
	if got.RequestID != want.RequestID || got.ResponseTo != want.ResponseTo || got.Op != want.Op || got.Flags != want.Flags {
		t.Fatalf("header and flags: %+v, expected %+v", got, want)
	}
	if !bytes.Equal(encode(t, want), encode(t, got)) {
		t.Fatalf("differs:\n%+v\n%+v", got, want)
	}
}

// A sender may put the sequences first (OP_MSG specification: sections in any order).
func TestSectionsInAnyOrder(t *testing.T) {
	body, doc := raw(t, bson.D{{Key: "insert", Value: "c"}}), raw(t, bson.D{{Key: "_id", Value: int32(1)}})
	b := appendHeader(nil, header{requestID: 1, op: OpMsg})
	b = appendInt32(b, 0)
	b = append(b, 1)
	b = appendInt32(b, int32(4+len("documents")+1+len(doc)))
	b = append(append(append(b, "documents"...), 0), doc...)
	b = append(append(b, 0), body...)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	m, err := ReadMessage(bytes.NewReader(b), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	var merged bson.D
	if err := bson.Unmarshal(m.Merged(), &merged); err != nil {
		t.Fatal(err)
	}
	if docs, ok := merged[1].Value.(bson.A); merged[1].Key != "documents" || !ok || len(docs) != 1 {
		t.Fatalf("merged body: %v", merged)
	}
}

func TestCompressedMessagesComeBack(t *testing.T) {
	codec, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	large := raw(t, bson.D{{Key: "text", Value: strings.Repeat("the same again ", 100_000)}})
	for _, with := range Compressors() {
		for name, want := range messages(t) {
			for _, body := range []bson.Raw{want.Body, large} {
				if want.Op == OpReply {
					want.Reply.Documents[0] = body
				}
				want.Body, want.Compressor = body, with
				var stream bytes.Buffer
				if err := NewWriter(&stream, codec).Write(&want); err != nil {
					t.Fatalf("%s %s: %v", with, name, err)
				}
				r := NewReader(&stream, DefaultLimits(), codec)
				r.Allow(with)
				got, err := r.Read()
				if err != nil || got.Compressor != with {
					t.Fatalf("%s %s: by %s, %v", with, name, got.Compressor, err)
				}
				same(t, want, got)
			}
		}
	}
}

func TestWhatIsMalformedIsRefused(t *testing.T) {
	good := encode(t, messages(t)["sequence"])
	with := func(at int, b ...byte) []byte { c := slices.Clone(good); copy(c[at:], b); return c }
	deep := bson.D{}
	for range 250 {
		deep = bson.D{{Key: "a", Value: deep}}
	}
	body := raw(t, bson.D{{Key: "insert", Value: "c"}, {Key: "documents", Value: bson.A{}}})
	summed := encode(t, messages(t)["checksum"])
	summed[30] ^= 1
	cases := map[string]struct {
		b    []byte
		want string
	}{
		"too long":          {with(0, 0, 0, 0, 0x7f), "length"},
		"negative":          {with(0, 0xff, 0xff, 0xff, 0xff), "length"},
		"too short":         {with(0, 16, 0, 0, 0), "length"},
		"opcode":            {with(12, 1, 2, 3, 4), "opcode"},
		"required flag":     {with(16, 4), "flags"},
		"section kind":      {with(20, 2), "kind 2"},
		"document length":   {with(21, 4, 0, 0, 0), "document of 4"},
		"document too long": {with(21, 0xff, 0xff, 0, 0), "document of"},
		"checksum":          {summed, "checksum"},
		"no body":           {encodeSections(t, nil, NewSequence("a", raw(t, bson.D{}))), "no body"},
		"two bodies":        {encodeSections(t, []bson.Raw{body, body}), "second body"},
		"two sequences":     {encodeSections(t, []bson.Raw{body}, NewSequence("a"), NewSequence("a")), "two sections"},
		"both places":       {encodeSections(t, []bson.Raw{body}, NewSequence("documents")), "both"},
		"too deep":          {encodeSections(t, []bson.Raw{raw(t, deep)}), "deeper"},
		"too many sections": {encodeSections(t, []bson.Raw{body}, slices.Repeat([]Sequence{NewSequence("a")}, 20)...), "sections"},
		"too many documents": {encodeSections(t, []bson.Raw{body},
			NewSequence("a", slices.Repeat([]bson.Raw{raw(t, bson.D{})}, MaxWriteBatchSize+1)...)), "documents"},
		"compressed, not negotiated": {append(with(12, 0xdc, 7), 0), "negotiated"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			codec, err := NewCodec()
			if err != nil {
				t.Fatal(err)
			}
			_, err = NewReader(bytes.NewReader(c.b), DefaultLimits(), codec).Read()
			var bad *FormatError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, expected a FormatError with %q", err, c.want)
			}
		})
	}
}

func encodeSections(t testing.TB, bodies []bson.Raw, sequences ...Sequence) []byte {
	t.Helper()
	b := appendInt32(appendHeader(nil, header{op: OpMsg}), 0)
	for _, body := range bodies {
		b = append(append(b, 0), body...)
	}
	for _, s := range sequences {
		b = appendInt32(append(b, 1), int32(4+len(s.Name)+1+len(s.docs)))
		b = append(append(append(b, s.Name...), 0), s.docs...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestCutOffIsNotMalformed(t *testing.T) {
	good := encode(t, messages(t)["types"])
	for n := range good {
		_, err := NewReader(bytes.NewReader(good[:n]), DefaultLimits(), nil).Read()
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Fatalf("%d of %d bytes: %v, expected %v", n, len(good), err, want)
		}
	}
}

// A length field alone must not cost memory: the sender has to send what it claims.
func TestClaimedLengthCostsNothing(t *testing.T) {
	b := appendHeader(nil, header{length: MaxMessageBytes, op: OpMsg})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadMessage(bytes.NewReader(b), DefaultLimits())
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 2*stepBytes {
		t.Errorf("%d bytes taken for a header", spent)
	}
}

// What a compressed message claims to hold is believed only up to the limit, and must be true.
func TestDecompressionIsBounded(t *testing.T) {
	codec, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	m := Message{Op: OpMsg, Body: raw(t, bson.D{{Key: "text", Value: strings.Repeat("a", 1<<20)}})}
	plain := encode(t, m)
	for _, with := range Compressors() {
		packed, err := codec.compress(nil, plain, with)
		if err != nil {
			t.Fatal(err)
		}
		for name, claim := range map[string]int{"less": 1 << 10, "more": 2 << 20, "beyond": 100 << 20, "negative": -5, "one less": len(plain) - HeaderBytes - 1} {
			b := slices.Clone(packed)
			binary.LittleEndian.PutUint32(b[20:], uint32(claim))
			var bad *FormatError
			if _, err := readCompressed(b, codec, DefaultLimits()); !errors.As(err, &bad) {
				t.Errorf("%s, claim %s: %v", with, name, err)
			}
		}
		small := DefaultLimits()
		small.MessageBytes = 64 << 10
		var bad *FormatError
		if _, err := readCompressed(packed, codec, small); !errors.As(err, &bad) {
			t.Errorf("%s: 1 MiB inside 64 KiB: %v", with, err)
		}
	}
}

func readCompressed(b []byte, codec *Codec, l Limits) (Message, error) {
	r := NewReader(bytes.NewReader(b), l, codec)
	r.Allow(Compressors()...)
	return r.Read()
}

func TestReaderReusesItsMemory(t *testing.T) {
	var stream bytes.Buffer
	for i := range 3 {
		stream.Write(encode(t, Message{Op: OpMsg, Body: raw(t, bson.D{{Key: "n", Value: int32(i)}})}))
	}
	r := NewReader(&stream, DefaultLimits(), nil)
	first, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	r.Swap(Memory{})
	if whole, err := r.Await(); !whole || err != nil {
		t.Fatalf("the next message is here: %v, %v", whole, err)
	}
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	if n := first.Body.Lookup("n").Int32(); n != 0 {
		t.Errorf("a message changed, though its memory was taken away, to %d", n)
	}
}

func TestReplyErrorRoundTrip(t *testing.T) {
	want := &CommandError{Code: 13, Name: "Unauthorized", Message: "no", Labels: []string{"RetryableWriteError"}}
	var got *CommandError
	if err := ReplyError(want.Document()); !errors.As(err, &got) || got.Code != 13 || got.Name != want.Name || !slices.Equal(got.Labels, want.Labels) {
		t.Errorf("%+v", got)
	}
	for _, ok := range []any{1, 1.0, int64(1), true} {
		if err := ReplyError(raw(t, bson.D{{Key: "ok", Value: ok}})); err != nil {
			t.Errorf("ok %v: %v", ok, err)
		}
	}
	if ReplyError(raw(t, bson.D{})) == nil {
		t.Error("a reply without ok is no success")
	}
}
