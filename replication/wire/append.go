package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// AppendMessage appends m, uncompressed, and its checksum when the flag is set. It fails, and appends nothing, on what
// the protocol can't carry; documents are taken as they are.
func AppendMessage(dst []byte, m *Message) ([]byte, error) {
	if err := sendable(m); err != nil {
		return dst, err
	}
	start := len(dst)
	out := appendHeader(dst, header{requestID: m.RequestID, responseTo: m.ResponseTo, op: m.Op})
	switch m.Op {
	case OpQuery:
		out = appendQuery(out, m)
	case OpReply:
		out = appendReply(out, m)
	default:
		out = appendSections(out, m)
	}
	size := len(out) - start
	if m.Op == OpMsg && m.Flags&ChecksumPresent != 0 {
		size += crc32.Size
	}
	if size > MaxMessageBytes {
		return out[:start], fmt.Errorf("message of %d bytes, at most %d", size, MaxMessageBytes)
	}
	binary.LittleEndian.PutUint32(out[start:], uint32(size))
	if m.Op == OpMsg && m.Flags&ChecksumPresent != 0 {
		out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli()))
	}
	return out, nil
}

func sendable(m *Message) error {
	switch {
	case m.Op == OpMsg && len(m.Body) < minDocumentBytes, m.Op == OpQuery && len(m.Body) < minDocumentBytes:
		return fmt.Errorf("message without a body")
	case m.Op == OpQuery && (m.Query == nil || strings.IndexByte(m.Query.Collection, 0) >= 0):
		return fmt.Errorf("query without a collection, or with a zero byte in its name")
	case m.Op == OpReply && m.Reply == nil:
		return fmt.Errorf("reply without its documents")
	case m.Op != OpMsg && m.Op != OpQuery && m.Op != OpReply:
		return fmt.Errorf("opcode %d can't be sent", m.Op)
	}
	for _, s := range m.Sequences {
		if s.Name == "" || strings.IndexByte(s.Name, 0) >= 0 {
			return fmt.Errorf("section named %q", s.Name)
		}
	}
	return nil
}

func appendSections(dst []byte, m *Message) []byte {
	dst = appendInt32(dst, int32(m.Flags))
	dst = append(append(dst, 0), m.Body...)
	for _, s := range m.Sequences {
		dst = append(dst, 1)
		dst = appendInt32(dst, int32(4+len(s.Name)+1+len(s.docs)))
		dst = append(append(dst, s.Name...), 0)
		dst = append(dst, s.docs...)
	}
	return dst
}
