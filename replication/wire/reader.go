package wire

import (
	"bufio"
	"fmt"
	"io"
	"slices"
)

const (
	lookAheadBytes = 16 << 10
	// stepBytes is how far memory runs ahead of what has really come: a length field alone costs nothing.
	stepBytes = 256 << 10
	// keepBytes is the largest memory a connection holds between messages.
	keepBytes = 1 << 20
)

// ReadMessage reads one message and not a byte more, into memory of its own. OP_COMPRESSED is refused: who negotiated
// compression has a Reader.
func ReadMessage(r io.Reader, l Limits) (Message, error) {
	b, h, err := readWhole(r, nil, l)
	if err != nil {
		return Message{}, err
	}
	return parse(b, h, l, nil)
}

// Reader reads the messages of one connection, reusing its memory.
type Reader struct {
	in        *bufio.Reader
	limits    Limits
	codec     *Codec
	allowed   uint8 // bit set of compressors
	raw       []byte
	plain     []byte
	sequences []Sequence
}

// NewReader reads from r. Compressed messages are refused until Allow.
func NewReader(r io.Reader, l Limits, codec *Codec) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, lookAheadBytes), limits: l, codec: codec}
}

// SetLimits changes what the next message may be.
func (r *Reader) SetLimits(l Limits) { r.limits = l }

// Allow takes messages compressed with these from now on.
func (r *Reader) Allow(compressors ...Compressor) {
	for _, c := range compressors {
		r.allowed |= 1 << c
	}
}

// Await blocks until the next message has begun to come and tells whether all of it is here, so that Read can't block.
func (r *Reader) Await() (whole bool, err error) {
	if _, err := r.in.Peek(1); err != nil {
		return false, err
	}
	if r.in.Buffered() < HeaderBytes {
		return false, nil
	}
	head, err := r.in.Peek(4)
	return err == nil && r.in.Buffered() >= int(int32At(head, 0)), err
}

// Read reads the next message. It is valid until the next Read, or as long as its memory when Swap took that away.
func (r *Reader) Read() (Message, error) {
	r.shrink()
	b, h, err := readWhole(r.in, r.raw[:0], r.limits)
	if err != nil {
		return Message{}, err
	}
	r.raw = b
	with := Uncompressed
	if h.op == OpCompressed {
		if b, h, with, err = r.decompress(b); err != nil {
			return Message{}, err
		}
		r.plain = b
	}
	m, err := parse(b, h, r.limits, r.sequences)
	r.sequences = m.Sequences[:0]
	m.Compressor = with
	return m, err
}

// Memory is what a message lies in.
type Memory struct {
	raw, plain []byte
	sequences  []Sequence
}

// Small tells that it is worth keeping.
func (m Memory) Small() bool { return cap(m.raw) <= keepBytes && cap(m.plain) <= keepBytes }

// Swap gives away the memory of the last message, which stays valid with it, and takes other for the next ones: empty,
// or one whose message nobody needs any more.
func (r *Reader) Swap(other Memory) Memory {
	given := Memory{r.raw, r.plain, r.sequences}
	r.raw, r.plain, r.sequences = other.raw, other.plain, other.sequences
	return given
}

func (r *Reader) decompress(b []byte) ([]byte, header, Compressor, error) {
	if len(b) > HeaderBytes+8 && (b[24] > 7 || r.allowed&(1<<b[24]) == 0 || r.codec == nil) {
		return nil, header{}, 0, malformed(24, "compressor %d was not negotiated", b[24])
	}
	return r.codec.decompress(r.plain, b, r.limits)
}

func (r *Reader) shrink() {
	if cap(r.raw) > keepBytes {
		r.raw = nil
	}
	if cap(r.plain) > keepBytes {
		r.plain = nil
	}
}

// readWhole reads one message's bytes into buf's memory.
func readWhole(r io.Reader, buf []byte, l Limits) ([]byte, header, error) {
	b, err := fill(r, buf, HeaderBytes)
	if err != nil {
		if err == io.ErrUnexpectedEOF && len(b) == 0 {
			err = io.EOF // between messages: a clean end
		}
		return nil, header{}, err
	}
	h, err := parseHeader(b, l)
	if err != nil {
		return nil, h, err
	}
	if b, err = fill(r, b, h.length); err != nil {
		return nil, h, fmt.Errorf("read message of %d bytes: %w", h.length, err)
	}
	return b, h, nil
}

// fill reads until b is n bytes long.
func fill(r io.Reader, b []byte, n int) ([]byte, error) {
	for len(b) < n {
		from := len(b)
		step := min(n-from, max(from, stepBytes))
		b = slices.Grow(b, step)[:from+step]
		got, err := io.ReadFull(r, b[from:])
		b = b[:from+got]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}
