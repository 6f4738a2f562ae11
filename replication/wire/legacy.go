package wire

import (
	"encoding/binary"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Query is what an OP_QUERY has beside the query itself. Servers know it for hello and isMaster only.
type Query struct {
	Flags        uint32
	Collection   string // "admin.$cmd" for a command
	Skip, Return int32
	Fields       bson.Raw // nil when not given
}

// Reply is what an OP_REPLY has beside its first document.
type Reply struct {
	Flags     uint32
	CursorID  int64
	Start     int32
	Documents []bson.Raw
}

// Bits of Reply.Flags.
const (
	QueryFailure uint32 = 1 << 1
	AwaitCapable uint32 = 1 << 3
)

func (m *Message) parseQuery(b []byte, l Limits) error {
	w := walker{b: b, limits: l}
	at, err := w.cstring(HeaderBytes+4, len(b))
	if err != nil {
		return err
	}
	q := &Query{Flags: uint32(int32At(b, HeaderBytes)), Collection: string(b[HeaderBytes+4 : at-1])}
	if len(b)-at < 8 {
		return malformed(at, "query cut off")
	}
	q.Skip, q.Return = int32At(b, at), int32At(b, at+4)
	end, err := w.document(at+8, len(b))
	if err != nil {
		return err
	}
	m.Body = bson.Raw(b[at+8 : end : end])
	if end < len(b) {
		from := end
		if end, err = w.document(from, len(b)); err != nil {
			return err
		}
		q.Fields = bson.Raw(b[from:end:end])
	}
	if end != len(b) {
		return malformed(end, "%d bytes behind the query", len(b)-end)
	}
	m.Query = q
	return nil
}

func (m *Message) parseReply(b []byte, l Limits) error {
	const fixed = HeaderBytes + 20
	if len(b) < fixed {
		return malformed(HeaderBytes, "reply cut off")
	}
	r := &Reply{Flags: uint32(int32At(b, HeaderBytes)), CursorID: int64(binary.LittleEndian.Uint64(b[HeaderBytes+4:])),
		Start: int32At(b, HeaderBytes+12)}
	count := int(int32At(b, HeaderBytes+16))
	if count < 0 || count > l.Documents {
		return malformed(HeaderBytes+16, "%d documents, at most %d", count, l.Documents)
	}
	w := walker{b: b, limits: l}
	at := fixed
	for range count {
		end, err := w.document(at, len(b))
		if err != nil {
			return err
		}
		r.Documents = append(r.Documents, bson.Raw(b[at:end:end]))
		at = end
	}
	if at != len(b) {
		return malformed(at, "%d bytes behind the reply", len(b)-at)
	}
	m.Reply = r
	if count > 0 {
		m.Body = r.Documents[0]
	}
	return nil
}

func appendQuery(dst []byte, m *Message) []byte {
	q := m.Query
	dst = appendInt32(dst, int32(q.Flags))
	dst = append(append(dst, q.Collection...), 0)
	dst = appendInt32(appendInt32(dst, q.Skip), q.Return)
	dst = append(dst, m.Body...)
	return append(dst, q.Fields...)
}

func appendReply(dst []byte, m *Message) []byte {
	r := m.Reply
	dst = appendInt32(dst, int32(r.Flags))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.CursorID))
	dst = appendInt32(appendInt32(dst, r.Start), int32(len(r.Documents)))
	for _, d := range r.Documents {
		dst = append(dst, d...)
	}
	return dst
}
