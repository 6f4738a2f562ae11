package shares

import (
	"fmt"
	"slices"
	"testing"
)

func fleet(pops, each int) (all []Candidate) {
	for p := range pops {
		for i := range each {
			all = append(all, Candidate{fmt.Sprintf("p%d-%d", p, i), fmt.Sprintf("p%d", p)})
		}
	}
	return all
}

func TestChooseSpreadsOverPoPs(t *testing.T) {
	all := fleet(3, 4)
	for _, node := range all {
		pops := map[byte]int{}
		chosen := Choose(node, all, 5)
		for _, c := range chosen {
			pops[c[1]]++
		}
		if len(chosen) != 5 || slices.Contains(chosen, node.Node) || pops[node.PoP[1]] != 1 {
			t.Errorf("%s: %v", node.Node, chosen)
		}
	}
	if got := Choose(all[0], all[:3], 5); len(got) != 2 {
		t.Errorf("one PoP of three: %v", got)
	}
}

// TestANodeThatLeavesChangesFew: only the wards of the node that left get other holders, and about as many as it had.
func TestANodeThatLeavesChangesFew(t *testing.T) {
	all := fleet(12, 17)
	without := slices.Delete(slices.Clone(all), 40, 41)
	held := map[string]int{}
	for _, node := range without {
		before, after := Choose(node, all, 5), Choose(node, without, 5)
		for _, h := range before {
			held[h]++
		}
		if slices.Contains(before, all[40].Node) == slices.Equal(before, after) {
			t.Errorf("%s: %v, then %v", node.Node, before, after)
		}
	}
	for _, n := range all {
		if held[n.Node] > 16 {
			t.Errorf("%s holds %d shares", n.Node, held[n.Node])
		}
	}
}
