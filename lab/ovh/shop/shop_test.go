package shop

import (
	"slices"
	"testing"
)

// A configuration in the availabilities is made of a plan's first two families, and an order needs one of each.
func TestPlansCanBeOrdered(t *testing.T) {
	codes := map[string]bool{}
	for _, p := range plans() {
		var names []string
		for _, f := range p.families {
			names = append(names, f.name)
			for _, a := range f.addons {
				if codes[a.code] {
					t.Errorf("addon %s is there twice", a.code)
				}
				codes[a.code] = true
			}
		}
		if !slices.Equal(names, []string{"memory", "storage", "bandwidth"}) {
			t.Errorf("%s: families %v", p.code, names)
		}
		if !slices.ContainsFunc(sorted(p.stock), p.deliverable) {
			t.Errorf("%s can be delivered nowhere", p.code)
		}
		if _, ok := planOf(p.product, p.code); !ok || p.ucents == 0 {
			t.Errorf("%s can't be found or costs nothing", p.code)
		}
	}
}

func TestDue(t *testing.T) {
	c := &cart{Items: []*item{
		{ID: 2, Parent: 1, Ucents: 10 * eurosCents},
		{ID: 1, Ucents: 61 * eurosCents, Setup: 61 * eurosCents},
	}}
	ucents, details := c.due()
	if ucents != 132*eurosCents || len(details) != 3 {
		t.Errorf("%d ucents in %d lines", ucents, len(details))
	}
	if first := details[0].(map[string]any); first["cartItemID"] != int64(1) {
		t.Errorf("the first line is about item %v", first["cartItemID"])
	}
}
