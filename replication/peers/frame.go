package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The format is drawn in docs/formats/peers.md.
const (
	version    = 1
	headBytes  = 6
	maxPayload = 64 << 10

	kindPing = 1
	kindPong = 2
)

// ping asks for the peer's clock. Times are Unix nanoseconds.
type ping struct {
	Seq  uint64
	Sent int64 // t1, the asker's clock
}

// pong answers a ping.
type pong struct {
	ping
	Received int64 // t2, the answerer's clock
	Answered int64 // t3
}

// ErrFrame is a frame that this version does not understand.
var ErrFrame = errors.New("not a frame of this protocol")

func (p ping) frame() []byte {
	b := newFrame(kindPing, 16)
	b = binary.BigEndian.AppendUint64(b, p.Seq)
	return binary.BigEndian.AppendUint64(b, uint64(p.Sent))
}

func (p pong) frame() []byte {
	b := newFrame(kindPong, 32)
	b = binary.BigEndian.AppendUint64(b, p.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Sent))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Received))
	return binary.BigEndian.AppendUint64(b, uint64(p.Answered))
}

func newFrame(kind byte, payload int) []byte {
	b := make([]byte, 0, headBytes+payload)
	b = binary.BigEndian.AppendUint32(b, uint32(payload))
	return append(b, version, kind)
}

// readFrame returns the next frame's kind and payload. Payloads of kinds not known are returned too: a newer peer may
// send what an older one skips.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxPayload || head[4] != version {
		return 0, nil, fmt.Errorf("%w: version %d, %d bytes; expected version %d, at most %d bytes", ErrFrame, head[4], size, version, maxPayload)
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return head[5], payload, nil
}

func parsePing(b []byte) (ping, error) {
	if len(b) < 16 {
		return ping{}, fmt.Errorf("%w: ping of %d bytes", ErrFrame, len(b))
	}
	return ping{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

func parsePong(b []byte) (pong, error) {
	if len(b) < 32 {
		return pong{}, fmt.Errorf("%w: pong of %d bytes", ErrFrame, len(b))
	}
	p, err := parsePing(b)
	return pong{p, int64(binary.BigEndian.Uint64(b[16:])), int64(binary.BigEndian.Uint64(b[24:]))}, err
}

// measure is what one exchange tells, by the four times of RFC 5905: how long the way there and back took without the
// answerer's own time, and how far the peer's clock is ahead of ours, ± half of that.
func (p pong) measure(back time.Time) (rtt, offset time.Duration) {
	t1, t2, t3, t4 := p.Sent, p.Received, p.Answered, back.UnixNano()
	return time.Duration((t4 - t1) - (t3 - t2)), time.Duration(((t2 - t1) + (t3 - t4)) / 2)
}
