package oplog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"
)

func full() Entry {
	return Entry{Origin: 255, Seq: 1 << 60, HLC: 1<<62 + 5, NS: "a.b", Deps: Vector{1: 9, 200: 1 << 40},
		Session: &Session{LSID: []byte("0123456789abcdef"), Txn: 77, Stmt: 3, Result: []byte{1, 2}}, Payload: []byte("delta"), Extra: []byte("newer")}
}

func TestEntryRoundTrip(t *testing.T) {
	void := Entry{Origin: 1, Seq: 1, Void: true, Payload: []byte{}}
	for _, want := range []Entry{full(), void, entry(9, 300)} {
		b, err := AppendEntry([]byte("before"), &want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseEntry(b[6:])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	e := full()
	b, _ := AppendEntry(nil, &e)
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := ParseEntry(b); !errors.Is(err, ErrFormat) {
			t.Fatalf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		if _, err := ParseEntry(b[:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestEntriesBeyondTheLimitsAreRefused(t *testing.T) {
	big := func(n int) []byte { return make([]byte, n) }
	for name, c := range map[string]struct {
		change func(*Entry)
		want   error
	}{
		"no origin":     {func(e *Entry) { e.Origin = 0 }, ErrFormat},
		"no seq":        {func(e *Entry) { e.Seq = 0 }, ErrFormat},
		"negative HLC":  {func(e *Entry) { e.HLC = -1 }, ErrFormat},
		"long name":     {func(e *Entry) { e.NS = string(big(MaxNS + 1)) }, ErrTooBig},
		"long payload":  {func(e *Entry) { e.Payload = big(MaxPayload + 1) }, ErrTooBig},
		"long extra":    {func(e *Entry) { e.Extra = big(MaxExtra + 1) }, ErrTooBig},
		"long session":  {func(e *Entry) { e.Session.LSID = big(MaxLSID + 1) }, ErrTooBig},
		"long result":   {func(e *Entry) { e.Session.Result = big(MaxResult + 1) }, ErrTooBig},
		"no session id": {func(e *Entry) { e.Session.LSID = nil }, ErrFormat},
		"negative txn":  {func(e *Entry) { e.Session.Txn = -1 }, ErrFormat},
		"negative stmt": {func(e *Entry) { e.Session.Stmt = -1 }, ErrFormat},
	} {
		e := full()
		c.change(&e)
		if _, err := AppendEntry(nil, &e); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range []Entry{full(), entry(1, 1), {Origin: 1, Seq: 1, Void: true}} {
		b, _ := AppendEntry(nil, &e)
		f.Add(b[:len(b)-crcBytes])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := binary.BigEndian.AppendUint32(append([]byte(nil), body...), crc32.Checksum(body, castagnoli))
		e, err := ParseEntry(b) // behind the checksum, or nothing would be reached
		if err != nil {
			return
		}
		again, err := AppendEntry(nil, &e)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x\nwas read as %+v and written as\n%x, %v", b, e, again, err)
		}
	})
}

func FuzzParseVector(f *testing.F) {
	f.Add(AppendVector(nil, Vector{1: 1, 255: 1 << 63}))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := ParseVector(b)
		if err == nil && !bytes.Equal(append(AppendVector(nil, v), rest...), b) {
			t.Fatalf("%x was read as %v", b, v)
		}
	})
}

func TestVector(t *testing.T) {
	a, b := Vector{1: 5, 2: 3}, Vector{1: 4, 3: 1}
	if a.Covers(b) || !a.Covers(Vector{1: 5, 9: 0}) {
		t.Error("covers")
	}
	c := a.Clone()
	c.Merge(b)
	if !reflect.DeepEqual(c, Vector{1: 5, 2: 3, 3: 1}) || len(a) != 2 {
		t.Error(c, a)
	}
	if got := after('l', 255); !bytes.Equal(got, []byte{'m'}) {
		t.Errorf("%q", got)
	}
}
