package shares

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
)

// Candidate is a node that could hold a share of another one's key.
type Candidate struct{ Node, PoP string }

// Choose picks at most n holders for node's shares out of others. They come from the PoPs in turn, the node's own last in
// each turn: what takes a whole site down must not take the quorum with it. Which ones is decided by a hash, so that the
// load is spread over the fleet, and a node that comes or goes changes the holders of few others.
func Choose(node Candidate, others []Candidate, n int) []string {
	type ranked struct {
		Candidate
		rank [sha256.Size]byte
		turn int
	}
	var all []ranked
	for _, o := range others {
		if o.Node != node.Node {
			all = append(all, ranked{Candidate: o, rank: sha256.Sum256([]byte(node.Node + "\n" + o.Node))})
		}
	}
	slices.SortFunc(all, func(a, b ranked) int { return bytes.Compare(a.rank[:], b.rank[:]) })
	turns := map[string]int{}
	for i := range all {
		all[i].turn = turns[all[i].PoP]
		turns[all[i].PoP]++
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), boolean(a.PoP == node.PoP)-boolean(b.PoP == node.PoP))
	})
	var out []string
	for _, c := range all[:min(n, MaxShares, len(all))] {
		out = append(out, c.Node)
	}
	slices.Sort(out)
	return out
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
