package wire

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Compressor is an id of OP_COMPRESSED.
type Compressor uint8

// What can be negotiated. The specification's noop (0) is for tests and never taken from a stranger.
const (
	Uncompressed Compressor = 0
	Snappy       Compressor = 1
	Zlib         Compressor = 2
	Zstd         Compressor = 3
)

// Compressors lists what can be negotiated, the best first.
func Compressors() []Compressor { return []Compressor{Zstd, Snappy, Zlib} }

// String is the name in hello's list.
func (c Compressor) String() string {
	switch c {
	case Snappy:
		return "snappy"
	case Zlib:
		return "zlib"
	case Zstd:
		return "zstd"
	}
	return "none"
}

// CompressorNamed is the one of that name, false for a name nobody here knows.
func CompressorNamed(name string) (Compressor, bool) {
	for _, c := range Compressors() {
		if c.String() == name {
			return c, true
		}
	}
	return Uncompressed, false
}

// Compressible is false for commands that the specification forbids to compress: a compressed secret tells its length.
func Compressible(command string) bool {
	switch command {
	case "hello", "isMaster", "ismaster", "saslStart", "saslContinue", "getnonce", "authenticate", "createUser",
		"updateUser", "copydbSaslStart", "copydbgetnonce", "copydb":
		return false
	}
	return true
}

// compressedHead is what lies between the header and the data: the inner opcode, its size, the compressor's id.
const compressedHead = 4 + 4 + 1

// zstdWindowBytes bounds what an encoder keeps; messages are small, and each core has one encoder.
const zstdWindowBytes = 256 << 10

// Codec compresses and decompresses for any number of connections at once.
type Codec struct {
	zstdIn  *zstd.Decoder
	zstdOut *zstd.Encoder
	zlibIn  sync.Pool // of io.ReadCloser that is a zlib.Resetter
	zlibOut sync.Pool // of *zlib.Writer
}

// NewCodec makes one; it holds a few MiB once each kind was used.
func NewCodec() (*Codec, error) {
	in, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxMessageBytes), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	out, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(zstdWindowBytes), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &Codec{zstdIn: in, zstdOut: out}, nil
}

// compress appends the OP_COMPRESSED form of message, a whole one with its header, to dst.
func (c *Codec) compress(dst, message []byte, with Compressor) ([]byte, error) {
	start := len(dst)
	dst = append(dst, message[:HeaderBytes]...)
	dst = append(dst, message[12:16]...) // the inner opcode
	dst = appendInt32(dst, int32(len(message)-HeaderBytes))
	dst = append(dst, byte(with))
	dst, err := c.encode(dst, message[HeaderBytes:], with)
	if err != nil {
		return dst[:start], fmt.Errorf("compress with %s: %w", with, err)
	}
	if len(dst)-start > MaxMessageBytes {
		return dst[:start], fmt.Errorf("message of %d bytes, at most %d", len(dst)-start, MaxMessageBytes)
	}
	copy(dst[start:], appendInt32(nil, int32(len(dst)-start)))
	copy(dst[start+12:], appendInt32(nil, int32(OpCompressed)))
	return dst, nil
}

func (c *Codec) encode(dst, plain []byte, with Compressor) ([]byte, error) {
	switch with {
	case Snappy:
		at, most := len(dst), snappy.MaxEncodedLen(len(plain))
		dst = append(dst, make([]byte, most)...)
		return dst[:at+len(snappy.Encode(dst[at:], plain))], nil
	case Zlib:
		return c.deflate(dst, plain)
	case Zstd:
		return c.zstdOut.EncodeAll(plain, dst), nil
	}
	return dst, fmt.Errorf("compressor %d unknown", with)
}

func (c *Codec) deflate(dst, plain []byte) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	w, pooled := c.zlibOut.Get().(*zlib.Writer)
	if pooled {
		w.Reset(out)
	} else {
		w = zlib.NewWriter(out)
	}
	defer c.zlibOut.Put(w)
	if _, err := w.Write(plain); err != nil {
		return dst, err
	}
	err := w.Close() // flushes, so it comes before Bytes
	return out.Bytes(), err
}

// decompress makes the message that OP_COMPRESSED in b holds, header and all, in memory that starts with dst's.
func (c *Codec) decompress(dst, b []byte, l Limits) ([]byte, header, Compressor, error) {
	if len(b) < HeaderBytes+compressedHead {
		return dst, header{}, 0, malformed(HeaderBytes, "compressed message cut off")
	}
	size, with := int(int32At(b, 20)), Compressor(b[24])
	h := header{length: HeaderBytes + size, requestID: int32At(b, 4), responseTo: int32At(b, 8), op: Opcode(int32At(b, 16))}
	if size < minDocumentBytes || size > l.MessageBytes-HeaderBytes {
		return dst, h, with, malformed(20, "%d bytes decompressed, expected %d to %d", size, minDocumentBytes, l.MessageBytes-HeaderBytes)
	}
	plain := appendHeader(sized(dst, h.length)[:0], h)
	plain, err := c.decode(plain, b[HeaderBytes+compressedHead:], size, with)
	if err != nil {
		return dst, h, with, malformed(HeaderBytes+compressedHead, "decompress with %s: %v", with, err)
	}
	if len(plain) != h.length {
		return dst, h, with, malformed(20, "%d bytes decompressed, said to be %d", len(plain)-HeaderBytes, size)
	}
	return plain, h, with, nil
}

// decode appends exactly size bytes to dst, whose capacity is that, or fails.
func (c *Codec) decode(dst, packed []byte, size int, with Compressor) ([]byte, error) {
	switch with {
	case Snappy:
		if n, err := snappy.DecodedLen(packed); err != nil || n != size {
			return dst, fmt.Errorf("%d bytes inside, said to be %d", n, size)
		}
		at := len(dst)
		_, err := snappy.Decode(dst[at:at+size:at+size], packed)
		return dst[:at+size], err
	case Zlib:
		return c.inflate(dst, packed, size)
	case Zstd:
		return c.zstdIn.DecodeAll(packed, dst[:len(dst):len(dst)+size])
	}
	return dst, fmt.Errorf("compressor %d unknown", with)
}

func (c *Codec) inflate(dst, packed []byte, size int) ([]byte, error) {
	in := bytes.NewReader(packed)
	r, pooled := c.zlibIn.Get().(io.ReadCloser)
	var err error
	if pooled {
		err = r.(zlib.Resetter).Reset(in, nil)
	} else {
		r, err = zlib.NewReader(in)
	}
	if err != nil {
		return dst, err // a reader that refused its first bytes is not worth keeping
	}
	defer c.zlibIn.Put(r)
	at := len(dst)
	if _, err := io.ReadFull(r, dst[at:at+size]); err != nil {
		return dst, err
	}
	var more [1]byte
	if n, err := r.Read(more[:]); n != 0 || err != io.EOF {
		return dst, fmt.Errorf("more inside than the %d bytes said", size)
	}
	return dst[:at+size], nil
}

// sized is b's memory when it suffices, else new memory, n bytes long.
func sized(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return make([]byte, n)
}
