package stream

import (
	"encoding/binary"
	"fmt"

	"popfleet/replication/oplog"
)

// Hello is the first frame of each side.
type Hello struct {
	Min, Max byte // versions spoken
	Origin   uint8
	Epoch    uint64 // of the cluster's membership
	Node     string
	PoP      string
	Vector   oplog.Vector // how far the sender's log is
}

func (h Hello) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{h.Min, h.Max, h.Origin}, h.Epoch)
	return oplog.AppendVector(appendText(appendText(b, h.Node), h.PoP), h.Vector)
}

func parseHello(b []byte) (Hello, error) {
	f := fields{b: b}
	h := Hello{Min: f.byte(), Max: f.byte(), Origin: f.byte(), Epoch: f.uint64(),
		Node: string(f.bytes(maxName)), PoP: string(f.bytes(maxName)), Vector: f.vector()}
	if f.err == nil && (h.Min == 0 || h.Min > h.Max || h.Origin == 0 || h.Node == "") {
		f.fail(fmt.Sprintf("hello of %q, origin %d, versions %d to %d", h.Node, h.Origin, h.Min, h.Max))
	}
	return h, f.err
}

// agree is the version both speak.
func agree(a, b Hello) (byte, error) {
	if v := min(a.Max, b.Max); v >= a.Min && v >= b.Min {
		return v, nil
	}
	return 0, fmt.Errorf("%w: it speaks versions %d to %d, this node %d to %d: upgrade the older one", ErrVersion, b.Min, b.Max, a.Min, a.Max)
}

// subscribe names the origins wanted, and after which entry. It replaces what was wanted before.
type subscribe struct{ from map[uint8]uint64 }

func (s subscribe) encode() []byte {
	b := []byte{byte(len(s.from))}
	for origin, seq := range s.from {
		b = binary.AppendUvarint(append(b, origin), seq)
	}
	return b
}

func parseSubscribe(b []byte) (subscribe, error) {
	f := fields{b: b}
	s := subscribe{map[uint8]uint64{}}
	for n := f.byte(); n > 0 && f.err == nil; n-- {
		origin := f.byte()
		s.from[origin] = f.uvarint()
	}
	return s, f.err
}

func parseVector(b []byte) (oplog.Vector, error) {
	f := fields{b: b}
	v := f.vector()
	return v, f.err
}

// Heartbeat is sent by both sides each second.
type Heartbeat struct {
	HLC     int64  // the sender's clock
	Through uint64 // all entries of the sender's own with stamps up to HLC have sequences up to this
	Low     int64  // everything up to here has arrived at the sender from everybody
	Vector  oplog.Vector

	sent, echo, held int64 // ns: sender's time; the time last heard from the other side, and how long ago
}

func (h Heartbeat) encode() []byte {
	var b []byte
	for _, v := range []int64{h.HLC, int64(h.Through), h.Low, h.sent, h.echo, h.held} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return oplog.AppendVector(b, h.Vector)
}

func parseHeartbeat(b []byte) (Heartbeat, error) {
	f := fields{b: b}
	h := Heartbeat{HLC: int64(f.uint64()), Through: f.uint64(), Low: int64(f.uint64()),
		sent: int64(f.uint64()), echo: int64(f.uint64()), held: int64(f.uint64())}
	h.Vector = f.vector()
	return h, f.err
}

// Why a refusal. The first two end the connection, the others concern one origin.
const (
	refusedVersion   = 1
	refusedAdmission = 2
	refusedTruncated = 3
	refusedDamaged   = 4
)

type refusal struct {
	code   byte
	origin uint8
	seq    uint64
	text   string
}

func (r refusal) encode() []byte {
	text := r.text[:min(len(r.text), maxText)]
	return appendText(binary.BigEndian.AppendUint64([]byte{r.code, r.origin}, r.seq), text)
}

func parseRefusal(b []byte) (refusal, error) {
	f := fields{b: b}
	r := refusal{code: f.byte(), origin: f.byte(), seq: f.uint64(), text: string(f.bytes(maxText))}
	return r, f.err
}

func encodeCredit(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func parseCredit(b []byte) (int64, error) {
	f := fields{b: b}
	n := f.uint64()
	if n > 1<<40 {
		f.fail("credit")
	}
	return int64(n), f.err
}

// Part is a piece of a snapshot or of a digest's exchange: reserved, with its codec.
type Part struct {
	Transfer uint64 // which one
	Last     bool
	Payload  []byte
}

func (p Part) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, p.Transfer)
	last := byte(0)
	if p.Last {
		last = 1
	}
	return appendText(append(b, last), p.Payload)
}

func parsePart(b []byte) (Part, error) {
	f := fields{b: b}
	p := Part{Transfer: f.uint64(), Last: f.byte()&1 == 1, Payload: f.bytes(maxPart)}
	return p, f.err
}
