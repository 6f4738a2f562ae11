package bootcheck

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"popfleet/agents/bootchain"
	"popfleet/playbooks/spec"
)

const (
	doShares   = "`fleet up` gives its peers their shares anew; see docs/runbooks/peers-do-not-open.md"
	doStranger = "somebody changed what this node boots from: see docs/runbooks/suspect-node.md"
)

// shareScript is what the door reads peers' shares with.
const shareScript = "etc/fleet/shares.sh"

// peers compares whom the initramfs would take shares of, and what, with what the operator says, and with the node's
// own copy, from which the per-node part is made anew. Somebody else's commitments beside no wish are worse than none.
func peers(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	if n.keptErr != nil {
		return failed("install the node anew: what its per-node part is made of is gone", "%v", n.keptErr)
	}
	kept := spec.BootPeers{Commitments: n.kept.Peers.Commitments, Logins: n.kept.Peers.Logins}
	if n.req.Peers != nil && !samePeers(kept, *n.req.Peers) {
		return failed(doShares, "the node's own copy of what its peers may hand over is not what was given to them: %s",
			difference(kept, *n.req.Peers))
	}
	next, err := n.nextPeers()
	if err != nil {
		return failed(doNodePart, "%v", err)
	}
	if kept.Commitments == "" {
		if next.Commitments != "" || len(next.Logins) > 0 {
			return failed(doStranger, "nobody but the fleet may open it, and the initramfs would take shares of %s", strings.Join(logins(next), ", "))
		}
		return passed("no peers may open it")
	}
	if !samePeers(next, kept) {
		return failed(doNodePart, "peers would not open it: in the initramfs %s", difference(next, kept))
	}
	if _, ok := n.tree.Regular(shareScript); !ok {
		return failed(doInitramfs, "peers would not open it: the initramfs lacks %s, and would take a share for a key", shareScript)
	}
	return passed("%s may hand over shares%s", strings.Join(logins(kept), ", "), n.comparedPeers())
}

func (n *node) comparedPeers() string {
	if n.req.Peers == nil {
		return ", as kept on the node"
	}
	return ", as they were given"
}

// nextPeers is what the initramfs would expect.
func (n *node) nextPeers() (p spec.BootPeers, err error) {
	if e, ok := n.tree.Lookup(bootchain.PeersFile); ok {
		p.Commitments = string(e.Data)
	}
	if e, ok := n.tree.Regular(bootchain.AuthorizedKeysFile); ok {
		if p.Logins, err = bootchain.ParsePeerLogins(e.Data); err != nil {
			err = fmt.Errorf("%s: %w", bootchain.AuthorizedKeysFile, err)
		}
	}
	return p, err
}

func logins(p spec.BootPeers) (names []string) {
	for _, l := range p.Logins {
		names = append(names, l.Node)
	}
	slices.Sort(names)
	return names
}

// lines are logins in a form that can be compared: by key, whatever a line's comment.
func lines(p spec.BootPeers) (out []string) {
	for _, l := range p.Logins {
		out = append(out, l.Node+" "+fingerprint(l.Key))
	}
	slices.Sort(out)
	return out
}

func samePeers(a, b spec.BootPeers) bool {
	return a.Commitments == b.Commitments && slices.Equal(lines(a), lines(b))
}

// difference says in words what of have is not as wanted. The commitments are public, and long.
func difference(have, want spec.BootPeers) string {
	switch {
	case have.Commitments == "" && want.Commitments != "":
		return "nothing is expected of any peer"
	case want.Commitments == "":
		return "shares of " + strings.Join(logins(have), ", ") + " are expected, of nobody by right"
	case have.Commitments != want.Commitments:
		return bootchain.PeersFile + " commits to other shares than those that were given"
	}
	return "the logins are of [" + strings.Join(lines(have), "; ") + "], given were [" + strings.Join(lines(want), "; ") + "]"
}
