package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"popfleet/replication/oplog"
)

// Versions spoken. In version 1 batches are never compressed.
const (
	MinVersion = 1
	Version    = 2
)

// kind is what a frame is. The format is drawn in FORMAT.md.
type kind byte

const (
	kindHello     kind = 1
	kindSubscribe kind = 2
	kindBatch     kind = 3
	kindAck       kind = 4
	kindHeartbeat kind = 5
	kindCredit    kind = 6
	kindRefusal   kind = 7
	// Reserved with their codec: documents and digests of the initial sync and of anti-entropy.
	kindSnapshot kind = 16
	kindDigest   kind = 17
)

const (
	headBytes = 6
	maxSmall  = 64 << 10
	maxPart   = 4 << 20
	// maxRaw bounds a batch before compression: one entry of the greatest size, and its length.
	maxRaw   = oplog.MaxEntry + 16
	maxFrame = maxRaw + 64
	maxName  = 255
	maxText  = 1024
)

// ErrFrame is bytes that are no frame of this protocol.
var ErrFrame = errors.New("not a frame of this protocol")

func limit(k kind) uint32 {
	switch k {
	case kindBatch:
		return maxFrame
	case kindSnapshot, kindDigest:
		return maxPart
	case kindHello, kindSubscribe, kindAck, kindHeartbeat, kindCredit, kindRefusal:
		return maxSmall
	}
	return maxFrame // of a newer version: skipped
}

func known(k kind) bool {
	return k >= kindHello && k <= kindRefusal || k == kindSnapshot || k == kindDigest
}

func appendFrame(b []byte, k kind, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, byte(k), 0)
	return append(b, payload...)
}

// readFrame returns the next frame of a kind that is known. Memory grows with what arrives, not with what is announced.
func readFrame(r io.Reader) (kind, []byte, error) {
	for {
		var head [headBytes]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 0, nil, err
		}
		size, k := binary.BigEndian.Uint32(head[:]), kind(head[4])
		if size > limit(k) {
			return 0, nil, fmt.Errorf("%w: kind %d of %d bytes; expected at most %d", ErrFrame, k, size, limit(k))
		}
		if !known(k) {
			if _, err := io.CopyN(io.Discard, r, int64(size)); err != nil {
				return 0, nil, io.ErrUnexpectedEOF
			}
			continue
		}
		var b bytes.Buffer
		b.Grow(int(min(size, maxSmall)))
		if _, err := io.CopyN(&b, r, int64(size)); err != nil {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return k, b.Bytes(), nil
	}
}

// fields takes a payload apart; after the first mistake everything is zero and err says why. What follows the last field
// is a newer version's and is left.
type fields struct {
	b   []byte
	err error
}

func (f *fields) fail(what string) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s", ErrFrame, what)
	}
	f.b = nil
}

func (f *fields) byte() byte {
	if len(f.b) == 0 {
		f.fail("cut short")
		return 0
	}
	v := f.b[0]
	f.b = f.b[1:]
	return v
}

func (f *fields) uint64() uint64 {
	if len(f.b) < 8 {
		f.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint64(f.b)
	f.b = f.b[8:]
	return v
}

// uvarint accepts the shortest form only.
func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || n > 1 && f.b[n-1] == 0 {
		f.fail("number")
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) bytes(limit uint64) []byte {
	n := f.uvarint()
	if n > limit || n > uint64(len(f.b)) {
		f.fail("length")
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) vector() oplog.Vector {
	if f.err != nil {
		return nil
	}
	v, rest, err := oplog.ParseVector(f.b)
	if err != nil {
		f.b, f.err = nil, fmt.Errorf("%w: %w", ErrFrame, err)
		return nil
	}
	f.b = rest
	return v
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
