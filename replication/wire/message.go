package wire

import (
	"hash/crc32"
	"iter"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Flags are OP_MSG's.
type Flags uint32

// ChecksumPresent: CRC-32C behind the last section. MoreToCome: no reply to this one, or another reply follows.
// ExhaustAllowed: the client would take several replies.
const (
	ChecksumPresent Flags = 1 << 0
	MoreToCome      Flags = 1 << 1
	ExhaustAllowed  Flags = 1 << 16
)

// mustUnderstand are the bits that a receiver has to refuse when it doesn't know them (OP_MSG specification).
const mustUnderstand Flags = 0xffff

// Message is one message. Its memory belongs to whom the reading function says.
type Message struct {
	Op         Opcode // OpMsg, or OpQuery and OpReply for a legacy hello; never OpCompressed
	RequestID  int32
	ResponseTo int32
	Flags      Flags
	Body       bson.Raw   // the kind-0 section; the query of an OP_QUERY; the first document of an OP_REPLY
	Sequences  []Sequence // the kind-1 sections, in the order they came
	Query      *Query     // of OP_QUERY only
	Reply      *Reply     // of OP_REPLY only
	Compressor Compressor // how it came, or how it is to go
}

// Sequence is a kind-1 section: documents that belong into the body as the array Name.
type Sequence struct {
	Name  string
	Count int
	docs  []byte // documents end to end, walked
}

// NewSequence joins documents.
func NewSequence(name string, docs ...bson.Raw) Sequence {
	s := Sequence{Name: name, Count: len(docs)}
	for _, d := range docs {
		s.docs = append(s.docs, d...)
	}
	return s
}

// All yields the documents, sharing memory with the message.
func (s Sequence) All() iter.Seq2[int, bson.Raw] {
	return func(yield func(int, bson.Raw) bool) {
		rest := s.docs
		for i := 0; len(rest) > 0; i++ {
			size := int32At(rest, 0)
			if !yield(i, bson.Raw(rest[:size:size])) {
				return
			}
			rest = rest[size:]
		}
	}
}

// Bytes is how much the documents take.
func (s Sequence) Bytes() int { return len(s.docs) }

// Sequence is the kind-1 section of that name.
func (m *Message) Sequence(name string) (Sequence, bool) {
	for _, s := range m.Sequences {
		if s.Name == name {
			return s, true
		}
	}
	return Sequence{}, false
}

// Merged is the body with every sequence as an array at its end, as the OP_MSG specification defines it. Without
// sequences it is the body itself.
func (m *Message) Merged() bson.Raw {
	if len(m.Sequences) == 0 {
		return m.Body
	}
	size := len(m.Body)
	for _, s := range m.Sequences {
		size += len(s.Name) + 8 + len(s.docs) + 8*s.Count
	}
	doc := append(make([]byte, 0, size), m.Body[:len(m.Body)-1]...)
	for _, s := range m.Sequences {
		var at int32
		at, doc = bsoncore.AppendArrayElementStart(doc, s.Name)
		for i, d := range s.All() {
			doc = bsoncore.AppendDocumentElement(doc, indexKey(i), bsoncore.Document(d))
		}
		doc, _ = bsoncore.AppendArrayEnd(doc, at)
	}
	doc, _ = bsoncore.AppendDocumentEnd(doc, 0)
	return bson.Raw(doc)
}

func indexKey(i int) string { return strconv.Itoa(i) }

// parse reads the whole message in b; what it returns shares b's memory. sequences is memory to reuse.
func parse(b []byte, h header, l Limits, sequences []Sequence) (Message, error) {
	m := Message{Op: h.op, RequestID: h.requestID, ResponseTo: h.responseTo}
	var err error
	switch h.op {
	case OpMsg:
		m.Sequences = sequences[:0]
		err = m.parseMsg(b, l)
	case OpQuery:
		err = m.parseQuery(b, l)
	case OpReply:
		err = m.parseReply(b, l)
	default:
		err = malformed(12, "opcode %d inside OP_COMPRESSED", h.op)
	}
	return m, err
}

func (m *Message) parseMsg(b []byte, l Limits) error {
	m.Flags = Flags(int32At(b, HeaderBytes))
	if unknown := m.Flags & mustUnderstand &^ (ChecksumPresent | MoreToCome); unknown != 0 {
		return malformed(HeaderBytes, "unknown required flags %#x", uint32(unknown))
	}
	end := len(b)
	if m.Flags&ChecksumPresent != 0 {
		if end -= crc32.Size; end < HeaderBytes+4 {
			return malformed(HeaderBytes, "checksum cut off")
		}
		if sum := crc32.Checksum(b[:end], castagnoli()); sum != uint32(int32At(b, end)) {
			return malformed(end, "checksum %08x, expected %08x", uint32(int32At(b, end)), sum)
		}
	}
	w := walker{b: b[:end], limits: l}
	for at, n := HeaderBytes+4, 0; at < end; n++ {
		if n == l.Sections {
			return malformed(at, "more than %d sections", l.Sections)
		}
		next, err := m.section(&w, at)
		if err != nil {
			return err
		}
		at = next
	}
	if m.Body == nil {
		return malformed(end, "no body section")
	}
	return m.checkNames()
}

func (m *Message) section(w *walker, at int) (int, error) {
	switch kind := w.b[at]; kind {
	case 0:
		if m.Body != nil {
			return 0, malformed(at, "second body section")
		}
		end, err := w.document(at+1, len(w.b))
		if err == nil {
			m.Body = bson.Raw(w.b[at+1 : end : end])
		}
		return end, err
	case 1:
		return m.sequence(w, at+1)
	default:
		return 0, malformed(at, "section of kind %d, expected 0 or 1", kind)
	}
}

func (m *Message) sequence(w *walker, from int) (int, error) {
	if len(w.b)-from < 5 {
		return 0, malformed(from, "section cut off")
	}
	size := int(int32At(w.b, from))
	if size < 5 || size > len(w.b)-from {
		return 0, malformed(from, "section of %d bytes in %d", size, len(w.b)-from)
	}
	end := from + size
	docs, err := w.cstring(from+4, end)
	if err != nil {
		return 0, err
	}
	s := Sequence{Name: name(w.b[from+4 : docs-1]), docs: w.b[docs:end:end]}
	if s.Name == "" {
		return 0, malformed(from+4, "section without a name")
	}
	for at := docs; at < end; s.Count++ {
		if s.Count == w.limits.Documents {
			return 0, malformed(at, "more than %d documents in a section", w.limits.Documents)
		}
		if at, err = w.document(at, end); err != nil {
			return 0, err
		}
	}
	m.Sequences = append(m.Sequences, s)
	return end, nil
}

// checkNames refuses a field that is given twice: body and section would disagree on what was asked.
func (m *Message) checkNames() error {
	for i, s := range m.Sequences {
		for _, earlier := range m.Sequences[:i] {
			if earlier.Name == s.Name {
				return malformed(HeaderBytes, "two sections %q", s.Name)
			}
		}
		if _, err := bsoncore.Document(m.Body).LookupErr(s.Name); err == nil {
			return malformed(HeaderBytes, "%q both in the body and as a section", s.Name)
		}
	}
	return nil
}

// name avoids an allocation for what drivers send.
func name(b []byte) string {
	switch string(b) {
	case "documents":
		return "documents"
	case "updates":
		return "updates"
	case "deletes":
		return "deletes"
	case "ops":
		return "ops"
	case "nsInfo":
		return "nsInfo"
	}
	return string(b)
}

// castagnoli is crc32's own table of that name: made once inside that package.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
