package zone

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"popfleet/dns/feed"
	"popfleet/dns/place"
)

var names = Names{Origin: "demo.test.", NS: []string{"fsn-1.demo.test."}, Live: []string{"www.demo.test.", "a.b.demo.test."}}

// node makes one from "name pop state address…".
func node(s string) feed.Node {
	f := strings.Fields(s)
	n := feed.Node{Name: f[0], PoP: f[1], State: f[2]}
	for _, a := range f[3:] {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	switch n.PoP {
	case "fsn":
		n.Lat, n.Lon = 50.5, 12.4
	case "gra":
		n.Lat, n.Lon = 51, 2.1
	case "syd":
		n.Lat, n.Lon = -33.9, 151.2
	}
	return n
}

func build(nodes ...string) *Zone {
	var all []feed.Node
	for _, n := range nodes {
		all = append(all, node(n))
	}
	return Build(names, all, feed.Map{V: 1, Nodes: all}, 1)
}

func addresses(t *testing.T, z *Zone, name string) string {
	t.Helper()
	n := z.Find(name)
	if n == nil {
		return "no such name"
	}
	var out []string
	for _, a := range append(Flatten(n.V4(), 0, false, 99), Flatten(n.V6(), 0, false, 99)...) {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestWhoIsAnswered(t *testing.T) {
	tests := []struct {
		name  string
		nodes []string
		want  map[string]string
	}{
		{"only the serving", []string{"fsn-1 fsn serving 1.1.1.1 2001:db8::1", "fsn-2 fsn draining 1.1.1.2", "gra-1 gra dead 1.1.1.3"}, map[string]string{
			"demo.test.": "1.1.1.1 2001:db8::1", "www.demo.test.": "1.1.1.1 2001:db8::1", "fsn.demo.test.": "1.1.1.1 2001:db8::1",
			"gra.demo.test.": "1.1.1.3", "gra-1.demo.test.": "1.1.1.3", "fsn-2.demo.test.": "1.1.1.2",
			"b.demo.test.": "", "x.demo.test.": "no such name", "x.fsn-1.demo.test.": "no such name",
		}},
		{"full before draining", []string{"fsn-1 fsn full 1.1.1.1", "fsn-2 fsn draining 1.1.1.2"}, map[string]string{"demo.test.": "1.1.1.1"}},
		{"draining before dead", []string{"fsn-1 fsn failing 1.1.1.1", "fsn-2 fsn draining 1.1.1.2"}, map[string]string{"demo.test.": "1.1.1.2"}},
		{"all when all look down", []string{"fsn-1 fsn failing 1.1.1.1", "gra-1 gra dead 1.1.1.2"}, map[string]string{"demo.test.": "1.1.1.1 1.1.1.2"}},
		{"serving without an address is nobody", []string{"fsn-1 fsn serving", "gra-1 gra dead 1.1.1.2"}, map[string]string{"demo.test.": "1.1.1.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			z := build(tt.nodes...)
			for name, want := range tt.want {
				if got := addresses(t, z, name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestStaticNodesAreAnsweredThoughTheMapForgetsThem(t *testing.T) {
	z := Build(names, []feed.Node{node("fsn-1 fsn dead 1.1.1.1")}, feed.Map{Nodes: []feed.Node{node("gra-1 gra serving 1.1.1.9")}}, 1)
	for name, want := range map[string]string{"fsn-1.demo.test.": "1.1.1.1", "demo.test.": "1.1.1.9", "gra-1.demo.test.": "1.1.1.9"} {
		if got := addresses(t, z, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestNearestAndTurn(t *testing.T) {
	z := build("syd-1 syd serving 1.1.3.1", "fsn-1 fsn serving 1.1.1.1", "fsn-2 fsn serving 1.1.1.2", "gra-1 gra serving 1.1.2.1 1.1.2.2")
	paris := place.Point{Lat: 48.85, Lon: 2.35}
	sites := Nearest(z.Find("demo.test.").V4(), paris)
	want := [][]string{
		{"1.1.2.1", "1.1.2.2", "1.1.1.1", "1.1.1.2", "1.1.3.1"},
		{"1.1.2.1", "1.1.2.2", "1.1.1.2", "1.1.1.1", "1.1.3.1"},
	}
	for turn, want := range want {
		got := Flatten(sites, turn, true, 99)
		for i, a := range got {
			if a.String() != want[i] {
				t.Errorf("turn %d: %v, want %v", turn, got, want)
				break
			}
		}
	}
	if got := Flatten(sites, 0, true, 3); len(got) != 3 {
		t.Errorf("limit 3 gave %v", got)
	}
	first := map[string]bool{}
	for turn := range 4 {
		first[Flatten(z.Find("demo.test.").V4(), turn, false, 99)[0].String()] = true
	}
	if len(first) != 4 {
		t.Errorf("four turns began with %v, want each of the four nodes", first)
	}
}

func TestHolds(t *testing.T) {
	z := build("fsn-1 fsn serving 1.1.1.1")
	for name, want := range map[string]bool{"demo.test.": true, "a.demo.test.": true, "xdemo.test.": false, "test.": false, ".": false} {
		if got := z.Holds(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
