package oplog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Limits of an entry. A document has at most 16 MiB; its delta carries metadata beside it.
const (
	MaxNS      = 512
	MaxLSID    = 64
	MaxResult  = 17 << 20
	MaxPayload = 40 << 20
	MaxExtra   = 64 << 10
	// MaxEntry bounds the encoding of one entry.
	MaxEntry = MaxPayload + MaxResult + MaxExtra + 16<<10
)

// Entry is one change of one origin.
type Entry struct {
	Origin  uint8  // 1…255, the node that issued it
	Seq     uint64 // from 1, without holes
	HLC     int64
	Void    bool     // nothing happened at this seq: it was taken, and its write never took place
	NS      string   // database.collection; empty for what concerns no collection
	Deps    Vector   // what the origin had seen; nil when the payload needs nothing
	Session *Session // of a retryable write
	Payload []byte   // opaque
	// Extra is what a newer version added; kept and passed on as it is.
	Extra []byte
}

// Session makes a retry recognizable and answerable.
type Session struct {
	LSID   []byte
	Txn    int64
	Stmt   int32
	Result []byte // opaque reply to the first attempt
}

// The encoding, and with it the format on disk and on the wire: FORMAT.md.
const (
	entryVersion = 1
	flagVoid     = 1 << 0
	flagSession  = 1 << 1
	crcBytes     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (e *Entry) check() error {
	switch {
	case e.Origin == 0 || e.Seq == 0 || e.HLC < 0:
		return fmt.Errorf("%w: origin %d, seq %d, HLC %d", ErrFormat, e.Origin, e.Seq, e.HLC)
	case len(e.NS) > MaxNS || len(e.Payload) > MaxPayload || len(e.Extra) > MaxExtra:
		return fmt.Errorf("%w: name of %d, payload of %d, extra of %d bytes", ErrTooBig, len(e.NS), len(e.Payload), len(e.Extra))
	case e.Session != nil && (len(e.Session.LSID) > MaxLSID || len(e.Session.Result) > MaxResult):
		return fmt.Errorf("%w: session id of %d, result of %d bytes", ErrTooBig, len(e.Session.LSID), len(e.Session.Result))
	case e.Session != nil && (len(e.Session.LSID) == 0 || e.Session.Txn < 0 || e.Session.Stmt < 0):
		return fmt.Errorf("%w: session id of %d bytes, transaction %d, statement %d", ErrFormat, len(e.Session.LSID), e.Session.Txn, e.Session.Stmt)
	}
	return nil
}

// AppendEntry adds the encoding of e to b. It refuses what ParseEntry would.
func AppendEntry(b []byte, e *Entry) ([]byte, error) {
	if err := e.check(); err != nil {
		return b, err
	}
	start := len(b)
	var flags byte
	if e.Void {
		flags |= flagVoid
	}
	if e.Session != nil {
		flags |= flagSession
	}
	b = append(b, entryVersion, flags, e.Origin)
	b = binary.AppendUvarint(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.HLC))
	b = appendBytes(b, e.NS)
	b = AppendVector(b, e.Deps)
	if s := e.Session; s != nil {
		b = appendBytes(b, s.LSID)
		b = binary.AppendUvarint(b, uint64(s.Txn))
		b = binary.AppendUvarint(b, uint64(s.Stmt))
		b = appendBytes(b, s.Result)
	}
	b = appendBytes(b, e.Payload)
	b = append(b, e.Extra...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli)), nil
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ParseEntry reads one whole encoded entry. Its slices point into b.
func ParseEntry(b []byte) (Entry, error) {
	if len(b) < 3+crcBytes {
		return Entry{}, fmt.Errorf("%w: entry of %d bytes", ErrFormat, len(b))
	}
	body, sum := b[:len(b)-crcBytes], binary.BigEndian.Uint32(b[len(b)-crcBytes:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return Entry{}, fmt.Errorf("%w: checksum %08x, computed %08x", ErrFormat, sum, got)
	}
	if body[0] != entryVersion || body[1]&^(flagVoid|flagSession) != 0 {
		return Entry{}, fmt.Errorf("%w: entry of version %d with flags %02x; expected version %d", ErrFormat, body[0], body[1], entryVersion)
	}
	r := reader{b: body[3:]}
	e := Entry{Origin: body[2], Void: body[1]&flagVoid != 0}
	e.Seq, e.HLC, e.NS = r.uvarint(), r.int64(), string(r.bytes(MaxNS))
	e.Deps = r.vector()
	if body[1]&flagSession != 0 {
		e.Session = &Session{LSID: r.bytes(MaxLSID), Txn: int64(r.uvarint()), Stmt: int32(r.upTo(1<<31 - 1)), Result: r.bytes(MaxResult)}
	}
	e.Payload = r.bytes(MaxPayload)
	if len(r.b) > 0 {
		e.Extra = r.b
	}
	if r.err != nil {
		return Entry{}, r.err
	}
	return e, e.check()
}

// reader takes an encoding apart; after the first mistake everything is zero and err says why.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: entry: %s", ErrFormat, what)
	}
	r.b = nil
}

// uvarint accepts the shortest form only, so that an entry has one encoding.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) upTo(limit uint64) uint64 {
	v := r.uvarint()
	if v > limit {
		r.fail("number beyond its limit")
		return 0
	}
	return v
}

func (r *reader) int64() int64 {
	if len(r.b) < 8 {
		r.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return int64(v)
}

func (r *reader) bytes(limit int) []byte {
	n := r.upTo(uint64(limit))
	if n > uint64(len(r.b)) {
		r.fail("cut short")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) vector() Vector {
	if r.err != nil {
		return nil
	}
	v, rest, err := ParseVector(r.b)
	if err != nil {
		r.b, r.err = nil, err
		return nil
	}
	r.b = rest
	if len(v) == 0 {
		return nil
	}
	return v
}
