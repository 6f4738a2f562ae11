package cli

import (
	"context"
	"net/netip"
	"slices"

	"popfleet/provision/lifecycle"
)

// peers is how the fleet's nodes open each other when no controller is left.
func (s *session) peers() lifecycle.Peers {
	return lifecycle.Peers{Vault: s.vault, Threshold: s.fleet.Unlock.Peers}
}

// pendingShares are the nodes whose shares do not fit the fleet as it is; nodes are all of it.
func (s *session) pendingShares(nodes []lifecycle.Node) ([]string, error) {
	d, err := s.deps(nil)
	if err != nil {
		return nil, err
	}
	return lifecycle.PendingShares(d, nodes, s.peers())
}

// sharePeers makes the shares follow the fleet. It knows who left only when nodes are all of it.
func (s *session) sharePeers(ctx context.Context, nodes []lifecycle.Node, addresses map[string][]netip.Addr, show *progress) ([]lifecycle.Result, error) {
	d, err := s.deps(show.node)
	if err != nil {
		return nil, err
	}
	c, err := s.compiler(addresses)
	if err != nil {
		return nil, err
	}
	d.Compiler = c
	return lifecycle.SharePeers(ctx, d, nodes, s.peers())
}

// withShared takes what sharing failed at over into the nodes' results; a node that failed before keeps its reason.
func withShared(results, shared []lifecycle.Result) []lifecycle.Result {
	for _, r := range shared {
		i := slices.IndexFunc(results, func(o lifecycle.Result) bool { return o.Node == r.Node })
		switch {
		case i < 0:
			results = append(results, r)
		case r.Err != nil && results[i].Err == nil:
			results[i] = r
		}
	}
	return results
}
