package stream

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"popfleet/replication/oplog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func entry(origin uint8, seq uint64) oplog.Entry {
	return oplog.Entry{Origin: origin, Seq: seq, HLC: int64(seq)*1000 + int64(origin), NS: "shop.orders",
		Payload: []byte(strings.Repeat("delta ", 50))}
}

func entries(origin uint8, from, to uint64) (all []oplog.Entry) {
	for s := from; s <= to; s++ {
		all = append(all, entry(origin, s))
	}
	return all
}

func TestMessagesRoundTrip(t *testing.T) {
	v := oplog.Vector{1: 5, 9: 1 << 40}
	hello := Hello{1, 2, 7, 9, "fsn-1", "fsn", v}
	if got, err := parseHello(append(hello.encode(), "newer"...)); err != nil || !reflect.DeepEqual(got, hello) {
		t.Errorf("%+v, %v", got, err)
	}
	beat := Heartbeat{HLC: 1, Through: 2, Low: 3, Vector: v, sent: 4, echo: 5, held: 6}
	if got, err := parseHeartbeat(append(beat.encode(), "newer"...)); err != nil || !reflect.DeepEqual(got, beat) {
		t.Errorf("%+v, %v", got, err)
	}
	sub := subscribe{map[uint8]uint64{1: 0, 9: 77}}
	if got, err := parseSubscribe(append(sub.encode(), "newer"...)); err != nil || !reflect.DeepEqual(got, sub) {
		t.Errorf("%+v, %v", got, err)
	}
	no := refusal{refusedTruncated, 3, 99, "why"}
	if got, err := parseRefusal(append(no.encode(), "newer"...)); err != nil || got != no {
		t.Errorf("%+v, %v", got, err)
	}
	part := Part{5, true, []byte("x")}
	if got, err := parsePart(append(part.encode(), "newer"...)); err != nil || !reflect.DeepEqual(got, part) {
		t.Errorf("%+v, %v", got, err)
	}
	if n, err := parseCredit(encodeCredit(5)); err != nil || n != 5 {
		t.Error(n, err)
	}
}

func TestVersionsAreAgreedOn(t *testing.T) {
	for _, c := range []struct{ aMin, aMax, bMin, bMax, want byte }{
		{1, 2, 1, 1, 1}, {1, 2, 1, 3, 2}, {2, 3, 1, 2, 2}, {2, 3, 1, 1, 0}, {1, 1, 2, 2, 0}} {
		got, err := agree(Hello{Min: c.aMin, Max: c.aMax}, Hello{Min: c.bMin, Max: c.bMax})
		if got != c.want || (err != nil) != (c.want == 0) || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
}

func TestKindsNotKnownAreSkippedAndSizesChecked(t *testing.T) {
	b := appendFrame(nil, 99, make([]byte, 100_000))
	b = appendFrame(b, kindCredit, encodeCredit(3))
	r := bytes.NewReader(b)
	if k, payload, err := readFrame(r); err != nil || k != kindCredit || len(payload) != 8 {
		t.Errorf("%d, %x, %v", k, payload, err)
	}
	if _, _, err := readFrame(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for _, k := range []kind{kindHello, kindBatch, kindDigest, 99} {
		huge := appendFrame(nil, k, nil)
		huge[0] = 0xff
		if _, _, err := readFrame(bytes.NewReader(huge)); !errors.Is(err, ErrFrame) {
			t.Errorf("kind %d of 4 GiB: %v", k, err)
		}
	}
	if _, _, err := readFrame(bytes.NewReader(b[:50])); err != io.ErrUnexpectedEOF {
		t.Errorf("cut short: %v", err)
	}
}

func TestBatches(t *testing.T) {
	all := entries(3, 1, 500)
	var sizes [3]int
	for _, version := range []byte{1, 2} {
		p, err := newPacker(version)
		if err != nil {
			t.Fatal(err)
		}
		payload, cost, err := p.pack(all)
		if err != nil {
			t.Fatal(err)
		}
		got, gotCost, err := p.unpack(payload)
		if err != nil || gotCost != cost || !reflect.DeepEqual(got, all) {
			t.Errorf("version %d: %d entries, cost %d of %d, %v", version, len(got), gotCost, cost, err)
		}
		for n := range min(len(payload), 200) {
			if _, _, err := p.unpack(payload[:n]); !errors.Is(err, ErrFrame) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
		sizes[version] = len(payload)
		p.close()
	}
	if sizes[1] < len(all)*300 || sizes[2] > sizes[1]/4 {
		t.Errorf("%d bytes plain, %d packed", sizes[1], sizes[2])
	}
}

func FuzzFrames(f *testing.F) {
	p, err := newPacker(2)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.close)
	payload, _, _ := p.pack(entries(1, 1, 20))
	hello := Hello{1, 2, 7, 9, "fsn-1", "fsn", oplog.Vector{1: 2}}
	f.Add(appendFrame(appendFrame(nil, kindHello, hello.encode()), kindBatch, payload))
	f.Add(appendFrame(appendFrame(nil, kindHeartbeat, Heartbeat{}.encode()), 50, payload))
	f.Add(appendFrame(nil, kindSubscribe, subscribe{map[uint8]uint64{1: 2}}.encode()))
	f.Add(appendFrame(nil, kindRefusal, refusal{text: "no"}.encode()))
	f.Add(appendFrame(nil, kindSnapshot, Part{Payload: []byte("x")}.encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			k, payload, err := readFrame(r)
			if err != nil {
				return
			}
			parse(t, p, k, payload)
		}
	})
}

// parse reads a payload, writes it again and expects to read the same.
func parse(t *testing.T, p *packer, k kind, b []byte) {
	t.Helper()
	again := func(got, want any, err error) {
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("kind %d: %+v became %+v, %v", k, want, got, err)
		}
	}
	switch k {
	case kindHello:
		if h, err := parseHello(b); err == nil {
			got, err := parseHello(h.encode())
			again(got, h, err)
		}
	case kindHeartbeat:
		if h, err := parseHeartbeat(b); err == nil {
			got, err := parseHeartbeat(h.encode())
			again(got, h, err)
		}
	case kindSubscribe:
		if s, err := parseSubscribe(b); err == nil {
			got, err := parseSubscribe(s.encode())
			again(got, s, err)
		}
	case kindRefusal:
		if r, err := parseRefusal(b); err == nil {
			got, err := parseRefusal(r.encode())
			again(got, r, err)
		}
	case kindBatch:
		if all, cost, err := p.unpack(b); err == nil {
			payload, gotCost, err := p.pack(all)
			if err != nil || gotCost != cost {
				t.Fatalf("batch of %d: cost %d, then %d, %v", len(all), cost, gotCost, err)
			}
			got, _, err := p.unpack(payload)
			again(got, all, err)
		}
	case kindAck:
		_, _ = parseVector(b)
	case kindCredit:
		_, _ = parseCredit(b)
	case kindSnapshot, kindDigest:
		_, _ = parsePart(b)
	}
}
