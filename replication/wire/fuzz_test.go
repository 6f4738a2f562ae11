package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	other "github.com/FerretDB/wire"
	"github.com/FerretDB/wire/wirebson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

func seed(f *testing.F) {
	codec, err := NewCodec()
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range messages(f) {
		b := encode(f, m)
		f.Add(b)
		for _, with := range Compressors() {
			packed, err := codec.compress(nil, b, with)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packed)
		}
	}
	f.Add(encodeSections(f, []bson.Raw{raw(f, everyType())}, NewSequence("a"), NewSequence("a")))
	for _, b := range recorded(f) {
		f.Add(b)
	}
}

// FuzzRead: whatever comes, reading ends with a message, a FormatError or the end of the bytes; what was accepted is
// sound BSON for the driver too and survives being written and read again.
func FuzzRead(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		codec, err := NewCodec()
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(bytes.NewReader(b), GreetingLimits(), codec)
		r.Allow(Compressors()...)
		for {
			m, err := r.Read()
			if err != nil {
				var bad *FormatError
				if !errors.As(err, &bad) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unexpected kind of error: %v", err)
				}
				return
			}
			sound(t, &m)
		}
	})
}

func sound(t *testing.T, m *Message) {
	if m.Op != OpReply || len(m.Reply.Documents) > 0 {
		valid(t, m.Body)
	}
	for _, s := range m.Sequences {
		for _, d := range s.All() {
			valid(t, d)
		}
	}
	if m.Op == OpMsg {
		valid(t, m.Merged())
	}
	again, err := ReadMessage(bytes.NewReader(encode(t, *m)), DefaultLimits())
	if err != nil {
		t.Fatalf("written and read again: %v", err)
	}
	same(t, *m, again)
}

func valid(t *testing.T, doc bson.Raw) {
	if err := bsoncore.Document(doc).Validate(); err != nil {
		t.Fatalf("the driver refuses what was accepted: %v\n%x", err, []byte(doc))
	}
	var d bson.D
	if err := bson.Unmarshal(doc, &d); err != nil {
		t.Fatalf("the driver can't decode what was accepted: %v\n%x", err, []byte(doc))
	}
}

// FuzzDocument holds the walk against the driver's own: it may be stricter, never laxer.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(raw(f, everyType())))
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if CheckDocument(b, DefaultLimits()) == nil {
			valid(t, b)
		}
	})
}

// FuzzAgainstFerretDB decodes with FerretDB's wire package too. Where both accept, they see the same message; where
// one refuses, a rule that the two are known to differ in says why.
func FuzzAgainstFerretDB(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) { compare(t, b) })
}

func compare(t *testing.T, b []byte) {
	ours, err := ReadMessage(bytes.NewReader(b), DefaultLimits())
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return
	}
	if len(b) > 15 && Opcode(int32At(b, 12)) == OpCompressed {
		return // they have no decoder for it
	}
	theirs, theirErr := readOther(b)
	switch {
	case err == nil && theirErr != nil:
		if !theyAreStricter(&ours) {
			t.Fatalf("accepted here, refused there: %v", theirErr)
		}
	case err != nil && theirErr == nil:
		if !weAreStricter(err, theirs) {
			t.Fatalf("refused here (%v), accepted there", err)
		}
	case err == nil:
		agree(t, &ours, theirs)
	}
}

// readOther takes a panic for a refusal: their decoder indexes before it checks.
func readOther(b []byte) (m other.MsgBody, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	_, m, err = other.ReadMessage(bufio.NewReader(bytes.NewReader(b)))
	return m, err
}

// theyAreStricter: a section without documents, and a reply that has not exactly one document.
func theyAreStricter(m *Message) bool {
	return m.Op == OpReply || slices.ContainsFunc(m.Sequences, func(s Sequence) bool { return s.Count == 0 })
}

// weAreStricter: we walk every document at once and refuse what the specification says; they look inside when asked.
func weAreStricter(err error, m other.MsgBody) bool {
	var bad *FormatError
	if !errors.As(err, &bad) {
		return false
	}
	for _, rule := range []string{"unknown required flags", "two sections", "more than 16 sections", "both in the body", "documents in a section",
		"nested deeper", "boolean", "old binary", "length"} {
		if strings.Contains(bad.What, rule) {
			return true
		}
	}
	return !decodes(m)
}

// decodes tells whether they can decode all documents of m.
func decodes(m other.MsgBody) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	switch m := m.(type) {
	case *other.OpMsg:
		spec, sequence := m.RawSections()
		return deep(spec) && allDeep(sequence)
	case *other.OpReply:
		return deep(m.RawDocument())
	case *other.OpQuery:
		b, err := m.MarshalBinary()
		from := 4 + len(m.FullCollectionName) + 1 + 8
		return err == nil && allDeep(b[from:])
	}
	return false
}

func deep(d wirebson.RawDocument) bool { _, err := d.DecodeDeep(); return err == nil }

func allDeep(docs []byte) bool {
	for len(docs) > 0 {
		n, err := wirebson.FindRaw(docs)
		if err != nil || !deep(wirebson.RawDocument(docs[:n])) {
			return false
		}
		docs = docs[n:]
	}
	return true
}

func agree(t *testing.T, ours *Message, theirs other.MsgBody) {
	t.Helper()
	switch m := theirs.(type) {
	case *other.OpMsg:
		var docs []byte
		for _, s := range ours.Sequences {
			docs = append(docs, s.docs...)
		}
		spec, sequence := m.RawSections()
		if uint32(m.Flags) != uint32(ours.Flags) || !bytes.Equal(spec, ours.Body) || !bytes.Equal(sequence, docs) {
			t.Fatalf("different messages:\n%+v\n%v", ours, m)
		}
	default:
		b, err := m.MarshalBinary()
		if err != nil {
			return // a value they can't write
		}
		if want := encode(t, *ours)[HeaderBytes:]; !bytes.Equal(b, want) {
			t.Fatalf("different messages:\n%x\n%x\n%v", want, b, theirs)
		}
	}
}

// What drivers and servers really sent: both decoders read it, and agree.
func TestRecordedMessages(t *testing.T) {
	all := recorded(t)
	if len(all) == 0 {
		t.Skip("the module cache has no copy of github.com/FerretDB/wire")
	}
	for i, b := range all {
		ours, err := ReadMessage(bytes.NewReader(b), DefaultLimits())
		theirs, theirErr := readOther(b)
		if err != nil || theirErr != nil {
			t.Errorf("message %d: %v, %v", i, err, theirErr)
			continue
		}
		agree(t, &ours, theirs)
	}
}

// recorded are the messages that FerretDB's package ships as hex dumps: handshakes of drivers, and more.
func recorded(t testing.TB) (all [][]byte) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/FerretDB/wire").Output()
	if err != nil {
		t.Logf("the recorded messages are not here: %v", err)
		return nil
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "testdata")
	bodies, err := filepath.Glob(filepath.Join(dir, "*_body.hex"))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		all = append(all, append(dumped(t, strings.Replace(body, "_body", "_header", 1)), dumped(t, body)...))
	}
	return append(all, dumped(t, filepath.Join(dir, "import.hex")))
}

// dumped reads the two forms of hex dump that are in use: with an offset and up to 16 bytes a line, text behind.
func dumped(t testing.TB, path string) (b []byte) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for i, word := range strings.Fields(strings.SplitN(line, "|", 2)[0]) {
			v, err := hex.DecodeString(word)
			if i == 0 {
				continue // the offset
			}
			if err != nil || len(v) != 1 || i > 16 {
				break
			}
			b = append(b, v...)
		}
	}
	return b
}
