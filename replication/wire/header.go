package wire

import "encoding/binary"

// HeaderBytes is every message's head: length, request id, response to, opcode, each a little-endian int32.
const HeaderBytes = 16

// Opcode is the kind of a message.
type Opcode int32

// The opcodes that live: the others were removed from MongoDB 5.1 on.
const (
	OpReply      Opcode = 1
	OpQuery      Opcode = 2004
	OpCompressed Opcode = 2012
	OpMsg        Opcode = 2013
)

type header struct {
	length                int
	requestID, responseTo int32
	op                    Opcode
}

func parseHeader(b []byte, l Limits) (header, error) {
	h := header{length: int(int32At(b, 0)), requestID: int32At(b, 4), responseTo: int32At(b, 8), op: Opcode(int32At(b, 12))}
	// Five bytes of document behind four of flags: nothing shorter means anything.
	if h.length < HeaderBytes+5 || h.length > l.MessageBytes {
		return h, malformed(0, "length %d, expected %d to %d", h.length, HeaderBytes+5, l.MessageBytes)
	}
	switch h.op {
	case OpReply, OpQuery, OpCompressed, OpMsg:
		return h, nil
	}
	return h, malformed(12, "opcode %d, expected OP_MSG, OP_COMPRESSED, OP_QUERY or OP_REPLY", h.op)
}

func appendHeader(dst []byte, h header) []byte {
	dst = appendInt32(dst, int32(h.length))
	dst = appendInt32(dst, h.requestID)
	dst = appendInt32(dst, h.responseTo)
	return appendInt32(dst, int32(h.op))
}

func appendInt32(dst []byte, v int32) []byte { return binary.LittleEndian.AppendUint32(dst, uint32(v)) }

func int32At(b []byte, at int) int32 { return int32(binary.LittleEndian.Uint32(b[at:])) }
