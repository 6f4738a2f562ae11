package cli

import (
	"net/netip"
	"slices"
	"testing"

	"popfleet/inventory"
)

func TestScopeLeavesOthersAlone(t *testing.T) {
	f := inventory.Fleet{PoPs: []inventory.PoP{
		{Name: "fsn", Nodes: []inventory.Node{{Name: "fsn-1"}, {Name: "fsn-2"}}},
		{Name: "gra", Nodes: []inventory.Node{{Name: "gra-1"}, {Name: "gra-2"}}},
		{Name: "hel", Nodes: []inventory.Node{{Name: "hel-1"}}},
	}}
	exists := map[string][]netip.Addr{"gra-2": {netip.MustParseAddr("198.18.0.9")}}
	tests := map[string]struct{ named, want []string }{
		"nothing named":               {nil, []string{"fsn-1", "fsn-2", "gra-1", "gra-2", "hel-1"}},
		"a PoP":                       {[]string{"fsn"}, []string{"fsn-1", "fsn-2", "gra-2"}},
		"a node":                      {[]string{"fsn-2"}, []string{"fsn-2", "gra-2"}},
		"one that exists":             {[]string{"gra-2"}, []string{"gra-2"}},
		"a PoP and a node of another": {[]string{"hel", "gra-1"}, []string{"gra-1", "gra-2", "hel-1"}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got := scope(f, c.named, exists)
			var names []string
			for _, n := range got.Resolved() {
				names = append(names, n.Name)
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("%v, want %v", names, c.want)
			}
			if len(f.PoPs) != 3 || len(f.PoPs[1].Nodes) != 2 {
				t.Error("the fleet itself was changed")
			}
		})
	}
}
