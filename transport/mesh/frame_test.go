package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"popfleet/dns/feed"
)

func testBeat() Beat {
	return Beat{Node: "fsn-1", PoP: "fsn", Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.10")}, Place: Place{50.5, 12.4}, State: feed.Serving,
		AppOK: true, Load: Load{1, 2, 3}, Version: "v1", Epoch: 9, Seq: 4, SentUS: 1000, Echo: &Echo{900, 50}}
}

func TestFrames(t *testing.T) {
	payload, _ := json.Marshal(testBeat())
	var wire bytes.Buffer
	for range 2 {
		if err := writeFrame(&wire, frameBeat, payload); err != nil {
			t.Fatal(err)
		}
	}
	var buf []byte
	for range 2 {
		kind, got, err := readFrame(&wire, buf)
		if err != nil || kind != frameBeat {
			t.Fatal(kind, err)
		}
		buf = got
		b, err := decodeBeat(got)
		if err != nil || !reflect.DeepEqual(b, testBeat()) {
			t.Errorf("%+v %v", b, err)
		}
	}
	if _, _, err := readFrame(&wire, buf); !errors.Is(err, io.EOF) {
		t.Errorf("end of stream: %v", err)
	}
}

func TestFramesAreBounded(t *testing.T) {
	for _, wire := range []string{"\x00\x00\x00\x00\x01", "\x00\x01\x00\x01\x01", "\xff\xff\xff\xff\x01", "\x00\x00\x00\x05\x01ab"} {
		if _, _, err := readFrame(strings.NewReader(wire), nil); !errors.Is(err, errFrame) {
			t.Errorf("% x: %v", wire, err)
		}
	}
	if err := writeFrame(io.Discard, frameBeat, make([]byte, maxFrameBytes)); !errors.Is(err, errFrame) {
		t.Errorf("too long to send: %v", err)
	}
}

func TestDecodeBeatRefuses(t *testing.T) {
	payload, _ := json.Marshal(testBeat())
	for old, bad := range map[string]string{`"serving"`: `"dead"`, `"state"`: `"sate"`, `198.18.0.10`: `224.0.0.1`, `"fsn-1"`: `"FSN 1"`, `50.5`: `100`, `}`: ``} {
		if _, err := decodeBeat([]byte(strings.Replace(string(payload), old, bad, 1))); !errors.Is(err, errFrame) {
			t.Errorf("%s for %s: %v", bad, old, err)
		}
	}
	if _, err := decodeBeat([]byte(strings.Replace(string(payload), `"node"`, `"newer":1,"node"`, 1))); err != nil {
		t.Errorf("unknown key: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	payload, _ := json.Marshal(testBeat())
	var wire bytes.Buffer
	_ = writeFrame(&wire, frameBeat, payload)
	f.Add(wire.Bytes())
	f.Add([]byte("\x00\x00\x00\x03\x07{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			before := r.Len()
			kind, payload, err := readFrame(r, nil)
			if err != nil {
				return
			}
			if len(payload)+1 > maxFrameBytes || before-r.Len() != headerBytes+len(payload) {
				t.Fatalf("frame of %d bytes took %d", len(payload), before-r.Len())
			}
			if kind != frameBeat {
				continue
			}
			b, err := decodeBeat(payload)
			if err != nil {
				continue
			}
			again, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := decodeBeat(again); err != nil || !same(back, b) {
				t.Fatalf("%s: %v", again, err)
			}
		}
	})
}
