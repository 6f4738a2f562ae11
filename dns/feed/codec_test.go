package feed

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func sample() Map {
	return Map{V: 1, From: "fsn-1", Version: 7, Time: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), Nodes: []Node{
		{Name: "fsn-1", PoP: "fsn", State: Serving, Lat: 50.4, Lon: 12.3,
			Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("2001:db8:1:1::1")}},
		{Name: "gra-1", PoP: "gra", State: Dead, Lat: 51, Lon: 2.1, Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.20")}},
	}}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	line, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	var got []Map
	if err := Read(strings.NewReader(string(line)+string(line)), func(m Map) { got = append(got, m) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Map{want, want}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	line, _ := Encode(sample())
	good := string(line)
	tests := []struct{ name, old, new, want string }{
		{"unknown key", `"v":1`, `"v":1,"x":2`, "unknown field"},
		{"version", `"v":1`, `"v":2`, "version 2"},
		{"state", `"serving"`, `"fine"`, `state "fine"`},
		{"twice", `"gra-1"`, `"fsn-1"`, "twice"},
		{"unspecified", `198.18.0.10`, `0.0.0.0`, "can't be in an answer"},
		{"mapped", `198.18.0.10`, `::ffff:198.18.0.10`, "can't be in an answer"},
		{"zone", `2001:db8:1:1::1`, `fe80::1%eth0`, "can't be in an answer"},
		{"place", `50.4`, `500`, "not on earth"},
		{"name", `"gra-1"`, `"gra.1"`, "not a DNS label"},
		{"two values", "\n", "{}\n", "more than one value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(strings.Replace(good, tt.old, tt.new, 1)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestReadIsBounded(t *testing.T) {
	err := Read(strings.NewReader(strings.Repeat("a", MaxLineBytes+2)), func(Map) { t.Error("accepted") })
	if err == nil {
		t.Error("an endless line was accepted")
	}
}

func FuzzDecode(f *testing.F) {
	line, _ := Encode(sample())
	f.Add(line)
	f.Add([]byte(`{"v":1,"from":"a","nodes":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := Decode(line)
		if err != nil {
			return
		}
		again, err := Encode(m)
		if err != nil {
			t.Skip("a year JSON has no form for")
		}
		back, err := Decode(again)
		if err != nil || !back.SameNodes(m) {
			t.Fatalf("%s: decoded again: %v", again, err)
		}
	})
}
