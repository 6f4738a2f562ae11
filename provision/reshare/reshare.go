// Package reshare brings the key that a node's peers can open it with to what is wanted of it: the vault's part, the
// node's part and their order. It is called with a link to the sealed, running node; what the peers hold goes to them
// with their specs, between [Give] and [Retire] (docs/protocols/peer-unlock.md).
//
// Cut anywhere and run again it goes on. At every moment the shares of the generation that the vault calls current open
// the node, once the peers have them; a key that may be in the node's header is never forgotten before it is destroyed.
package reshare

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"popfleet/internal/shares"
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// Vault keeps keys and states. *vault.Vault has these methods.
type Vault interface {
	Shares(node string) (vault.ShareState, error)
	WantShares(node string, w vault.ShareWish) (vault.ShareState, error)
	CommitShares(node string, generation int) (vault.ShareState, error)
	EndShares(node string, generation int) (vault.ShareState, error)
	PeerLogin(node string) (vault.KeyPair, error)
	MachineKey(node string) (vault.Rotation, error)
}

// Caller sends one request to the node over its pinned system link.
type Caller func(ctx context.Context, c remote.Call) error

// Wish is how one node is to be opened by its peers.
type Wish struct {
	Node      string
	Install   string // run id of its installation
	Threshold int    // 0: not at all
	Peers     []string
}

// Wanted is the wish of a fleet for one of its nodes: threshold of at most most peers, chosen over the PoPs. A fleet too
// small for it, or a threshold of 0, is opened by nobody.
func Wanted(node shares.Candidate, install string, fleet []shares.Candidate, threshold, most int) Wish {
	w := Wish{Node: node.Node, Install: install, Threshold: threshold, Peers: shares.Choose(node, fleet, most)}
	if threshold < shares.MinThreshold || len(w.Peers) < threshold {
		w.Threshold, w.Peers = 0, nil
	}
	return w
}

// Pending writes the wish down and says whether [Give] or [Retire] has something to do on the node, without asking it.
func Pending(v Vault, w Wish) (give, retire bool, err error) {
	wish, err := w.vault(v)
	if err != nil {
		return false, false, err
	}
	s, err := v.WantShares(w.Node, wish)
	return s.Next != nil, s.Retiring, err
}

func (w Wish) vault(v Vault) (vault.ShareWish, error) {
	out := vault.ShareWish{Install: w.Install, Threshold: w.Threshold}
	for _, p := range w.Peers {
		k, err := v.PeerLogin(p)
		if err != nil {
			return out, fmt.Errorf("login of peer %s: %w", p, err)
		}
		out.Holders = append(out.Holders, vault.Holder{Node: p, Login: k.Public})
	}
	return out, nil
}

// Give makes the node openable by shares of the generation that fits the wish, beside the one before. Afterwards the
// holders' specs are to be applied, and then [Retire] to be called if the state says so.
func Give(ctx context.Context, v Vault, call Caller, w Wish) (vault.ShareState, error) {
	wish, err := w.vault(v)
	if err != nil {
		return vault.ShareState{}, err
	}
	s, err := v.WantShares(w.Node, wish)
	if err != nil || s.Next == nil {
		return s, err
	}
	r := spec.PeerKey{Step: spec.PeerKeyAdd, Key: s.Next.Key().Reveal()}
	both := []*vault.PeerShares{s.Next}
	if s.Current != nil {
		both = []*vault.PeerShares{s.Current, s.Next}
		r.Current = s.Current.Key().Reveal()
	}
	if err := send(ctx, v, call, w.Node, r, both); err != nil {
		return s, err
	}
	return v.CommitShares(w.Node, s.Next.Generation())
}

// Retire destroys on the node what is left of older generations, and expects nothing of them any more. Call it when
// enough holders have their shares of the current one: until then older shares may be all that can open the node.
func Retire(ctx context.Context, v Vault, call Caller, node string) (vault.ShareState, error) {
	s, err := v.Shares(node)
	if err != nil || !s.Retiring {
		return s, err
	}
	if s.Next != nil {
		return s, errors.New("a key is to be given first")
	}
	r := spec.PeerKey{Step: spec.PeerKeyRetire}
	generation := 0
	var kept []*vault.PeerShares
	if s.Current != nil {
		r.Key, generation, kept = s.Current.Key().Reveal(), s.Current.Generation(), []*vault.PeerShares{s.Current}
	}
	if err := send(ctx, v, call, node, r, kept); err != nil {
		return s, err
	}
	return v.EndShares(node, generation)
}

// Expected is what the node's initramfs is to know of its peers; nil while that is being exchanged, when both the older
// and the newer are right.
func Expected(v Vault, node string) (*spec.BootPeers, error) {
	s, err := v.Shares(node)
	if err != nil || s.Next != nil || s.Retiring {
		return nil, err
	}
	if s.Current == nil {
		return &spec.BootPeers{}, nil
	}
	p := expectation(node, []*vault.PeerShares{s.Current})
	return &p, nil
}

// expectation is what a node is to know of the generations given, oldest first.
func expectation(node string, generations []*vault.PeerShares) (p spec.BootPeers) {
	if len(generations) == 0 {
		return p
	}
	c := shares.Commitments{Node: node}
	logins := map[string]string{}
	for _, g := range generations {
		c.Generations = append(c.Generations, g.Commit())
		for _, h := range g.Holders() {
			logins[h.Node] = h.Login // of the newer generation, where a peer was replaced
		}
	}
	for n, k := range logins {
		p.Logins = append(p.Logins, spec.PeerLogin{Node: n, Key: k})
	}
	slices.SortFunc(p.Logins, func(a, b spec.PeerLogin) int { return strings.Compare(a.Node, b.Node) })
	p.Commitments = c.Text()
	return p
}

// send completes the request by who may log in and what is expected, in the order of the generations.
func send(ctx context.Context, v Vault, call Caller, node string, r spec.PeerKey, expected []*vault.PeerShares) error {
	machine, err := v.MachineKey(node)
	if err != nil {
		return err
	}
	r.Version, r.Node, r.MachineKey = 1, node, machine.Current.Reveal()
	p := expectation(node, expected)
	r.Commitments, r.Logins = p.Commitments, p.Logins
	var done spec.PeerKeyed
	if err := call(ctx, remote.Call{Op: spec.OpPeerKey, Spec: r, Result: &done}); err != nil {
		return fmt.Errorf("peers' key of %s: %w", node, err)
	}
	if len(done.Slots) == 0 {
		return fmt.Errorf("peers' key of %s: the node reports no key slots", node)
	}
	return nil
}
