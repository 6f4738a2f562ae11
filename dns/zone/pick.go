package zone

import (
	"net/netip"
	"slices"

	"popfleet/dns/place"
)

// Nearest returns the sites ordered by distance from the point, nearest first; equally far ones keep their order.
func Nearest(sites []Site, from place.Point) []Site {
	type far struct {
		site Site
		km   float64
	}
	all := make([]far, len(sites))
	for i, s := range sites {
		all[i] = far{s, place.Distance(from, s.Place)}
	}
	slices.SortStableFunc(all, func(a, b far) int {
		switch {
		case a.km < b.km:
			return -1
		case a.km > b.km:
			return 1
		default:
			return 0
		}
	})
	out := make([]Site, len(all))
	for i, f := range all {
		out[i] = f.site
	}
	return out
}

// Flatten returns the addresses in the order of the sites, at most limit of them. turn rotates: inside each site when
// the order of sites means something, over all of them otherwise, so clients that take the first spread out.
func Flatten(sites []Site, turn int, ordered bool, limit int) []netip.Addr {
	var nodes [][]netip.Addr
	for _, s := range sites {
		if ordered {
			nodes = append(nodes, rotated(s.Nodes, turn)...)
		} else {
			nodes = append(nodes, s.Nodes...)
		}
	}
	if !ordered {
		nodes = rotated(nodes, turn)
	}
	var out []netip.Addr
	for _, n := range nodes {
		out = append(out, n...)
		if len(out) >= limit {
			return out[:limit]
		}
	}
	return out
}

func rotated(nodes [][]netip.Addr, turn int) [][]netip.Addr {
	if len(nodes) < 2 {
		return nodes
	}
	k := turn % len(nodes)
	return append(slices.Clone(nodes[k:]), nodes[:k]...)
}
