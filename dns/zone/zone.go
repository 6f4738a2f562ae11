// Package zone holds the names of the fleet's zone and who is behind each of them. A Zone is built from the known
// nodes and the newest live map, and never changes: a new map makes a new Zone. It knows nothing of the DNS wire
// format. It cannot fail: a map in which nobody serves gives the nodes that are left, then all of them, never none.
package zone

import (
	"net/netip"
	"strings"

	"popfleet/dns/feed"
	"popfleet/dns/place"
)

// Names is the part of a zone that does not move. Origin, NS and Live are lower case and fully qualified, with the
// trailing dot.
type Names struct {
	Origin string
	NS     []string
	Live   []string // names that lead to whoever serves, beside the origin: www
}

// Zone is one immutable state of the zone.
type Zone struct {
	Names
	Serial uint32
	Map    feed.Map // the nodes it was built from, states included
	names  map[string]*Name
}

// Name is one existing name of the zone. A name without addresses exists (an empty non-terminal).
type Name struct {
	v4, v6 []Site
	moves  bool
}

// Site is one place of a name: for a moving name one PoP, else everything there is.
type Site struct {
	Place place.Point
	Nodes [][]netip.Addr // addresses of one family, grouped by node
}

// Build makes the zone. static are the nodes as configured: their own names are answered whether they live or not,
// because the NS records lean on them. live is the newest snapshot; a node it does not name is not served, a node only
// it names is.
func Build(n Names, static []feed.Node, live feed.Map, serial uint32) *Zone {
	z := &Zone{Names: n, Serial: serial, Map: live, names: map[string]*Name{}}
	pops := map[string][]feed.Node{}
	for _, node := range live.Nodes {
		pops[node.PoP] = append(pops[node.PoP], node)
		z.names[z.under(node.Name)] = fixed(node)
	}
	for _, node := range static {
		z.names[z.under(node.Name)] = fixed(node)
		if _, ok := pops[node.PoP]; !ok {
			pops[node.PoP] = nil // the name exists even while nobody is there
		}
	}
	for pop, nodes := range pops {
		z.names[z.under(pop)] = moving(nodes)
	}
	everywhere := moving(live.Nodes)
	z.names[n.Origin] = everywhere
	for _, name := range n.Live {
		z.names[name] = everywhere
	}
	z.addEmptyNonTerminals()
	return z
}

func (z *Zone) under(label string) string { return label + "." + z.Origin }

// addEmptyNonTerminals makes every ancestor of a name exist (RFC 4592 section 2.2.2).
func (z *Zone) addEmptyNonTerminals() {
	for name := range z.names {
		for name != z.Origin {
			_, name, _ = strings.Cut(name, ".")
			if _, ok := z.names[name]; !ok {
				z.names[name] = &Name{}
			}
		}
	}
}

// Holds says whether the name, lower case with its trailing dot, is at or below the origin.
func (z *Zone) Holds(name string) bool {
	if z.Origin == "." || name == z.Origin {
		return true
	}
	return strings.HasSuffix(name, "."+z.Origin)
}

// Find returns the name, or nil when there is none (NXDOMAIN).
func (z *Zone) Find(name string) *Name { return z.names[name] }

// Moves says whether the answer depends on who is alive and where the client is.
func (n *Name) Moves() bool { return n.moves }

// V4 and V6 are the name's places that have an address of that family.
func (n *Name) V4() []Site { return n.v4 }

// V6 is like V4.
func (n *Name) V6() []Site { return n.v6 }

func fixed(node feed.Node) *Name {
	n := &Name{}
	n.v4, n.v6 = sites([]feed.Node{node}, netip.Addr.Is4), sites([]feed.Node{node}, netip.Addr.Is6)
	return n
}

func moving(nodes []feed.Node) *Name {
	best := able(nodes)
	return &Name{v4: sites(best, netip.Addr.Is4), v6: sites(best, netip.Addr.Is6), moves: true}
}

// tiers is who is answered, best first; the first tier that has a node with an address wins. All of them, dead ones
// included, is the last: a map in which everything looks down is more likely wrong than right.
var tiers = [][]string{
	{feed.Serving},
	{feed.Full},
	{feed.Draining},
	{feed.Failing, feed.Dead},
}

func able(nodes []feed.Node) []feed.Node {
	for _, tier := range tiers {
		var in []feed.Node
		for _, n := range nodes {
			for _, state := range tier {
				if n.State == state && len(n.Addresses) > 0 {
					in = append(in, n)
				}
			}
		}
		if len(in) > 0 {
			return in
		}
	}
	return nil
}

// sites groups nodes by PoP, in the order the PoPs come, with the place of the PoP's first node.
func sites(nodes []feed.Node, family func(netip.Addr) bool) []Site {
	var out []Site
	index := map[string]int{}
	for _, n := range nodes {
		var addresses []netip.Addr
		for _, a := range n.Addresses {
			if family(a) {
				addresses = append(addresses, a)
			}
		}
		if len(addresses) == 0 {
			continue
		}
		i, ok := index[n.PoP]
		if !ok {
			i = len(out)
			index[n.PoP] = i
			out = append(out, Site{Place: place.Point{Lat: n.Lat, Lon: n.Lon}})
		}
		out[i].Nodes = append(out[i].Nodes, addresses)
	}
	return out
}
