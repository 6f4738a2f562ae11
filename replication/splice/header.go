package splice

import (
	"encoding/binary"
	"fmt"
	"io"
)

// headerBytes is the size of every message's header: length, request id, response to, opcode, little endian int32
// (MongoDB wire protocol).
const headerBytes = 16

// maxMessageBytes is what MongoDB's own servers accept: maxMessageSizeBytes of hello.
const maxMessageBytes = 48_000_000

// The opcodes that can pass. OP_QUERY and OP_REPLY are only used by drivers' first hello.
const (
	opReply      = 1
	opQuery      = 2004
	opCompressed = 2012
	opMsg        = 2013
)

// moreToCome in OP_MSG's flag bits: from a client, no reply will come; from a server, another reply follows.
const moreToCome = 1 << 1

type header struct {
	length     int32
	requestID  int32
	responseTo int32
	opcode     int32
}

// parseHeader refuses what no driver and no server sends.
func parseHeader(b []byte) (header, error) {
	h := header{
		length:     int32(binary.LittleEndian.Uint32(b[0:])),
		requestID:  int32(binary.LittleEndian.Uint32(b[4:])),
		responseTo: int32(binary.LittleEndian.Uint32(b[8:])),
		opcode:     int32(binary.LittleEndian.Uint32(b[12:])),
	}
	if h.length < headerBytes+4 || h.length > maxMessageBytes {
		return h, fmt.Errorf("message of %d bytes; expected %d to %d", h.length, headerBytes+4, maxMessageBytes)
	}
	switch h.opcode {
	case opReply, opQuery, opCompressed, opMsg:
		return h, nil
	}
	return h, fmt.Errorf("opcode %d; expected OP_MSG, OP_COMPRESSED, OP_QUERY or OP_REPLY", h.opcode)
}

// message is one message on its way: its first bytes, read, and how many follow.
type message struct {
	header
	head  []byte // header and the four bytes after it, valid until the next read
	flags uint32 // of OP_MSG
}

// readHead reads a message's header and the word behind it, which every opcode has.
func readHead(r io.Reader, buf *[headerBytes + 4]byte) (message, error) {
	if _, err := io.ReadFull(r, buf[:headerBytes]); err != nil {
		return message{}, err // io.EOF between messages is a clean end
	}
	h, err := parseHeader(buf[:headerBytes])
	if err != nil {
		return message{}, &MalformedError{err}
	}
	if _, err := io.ReadFull(r, buf[headerBytes:]); err != nil {
		return message{}, fmt.Errorf("message cut off: %w", io.ErrUnexpectedEOF)
	}
	m := message{header: h, head: buf[:]}
	if h.opcode == opMsg {
		m.flags = binary.LittleEndian.Uint32(buf[headerBytes:])
	}
	return m, nil
}

// rest is how many bytes of the message were not read yet.
func (m message) rest() int64 { return int64(m.length) - headerBytes - 4 }

// MalformedError is a message that is not MongoDB's wire protocol.
type MalformedError struct{ Err error }

func (e *MalformedError) Error() string { return "malformed message: " + e.Err.Error() }

func (e *MalformedError) Unwrap() error { return e.Err }
