package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"popfleet/internal/shares"
	"popfleet/inventory/vault"
	"popfleet/provision/remote"
	"popfleet/provision/reshare"
)

// Peers is how the nodes of a fleet open each other when no controller does (docs/protocols/peer-unlock.md).
type Peers struct {
	Vault     reshare.Vault
	Threshold int // how many shares open a node; 0: none are given, and those that were are taken away
	Most      int // how many nodes hold shares of one; default 5
}

const defaultHolders = 5

// SharePeers makes the peers' shares follow the fleet: for every node whose holders changed it gives the node another
// key beside the old one, applies the holders' specs, and then destroys the old key. nodes are all of the fleet. Call it
// when [Up] has done what it can; Deps.Compiler must put the shares on the nodes (playbooks.PeerShares).
//
// A fleet whose shares fit asks no machine anything. A node that is not up, or one too few of whose holders could be
// reached, keeps what it has, and the next run goes on. The results are those of the nodes that there was something to do
// on; what failed is theirs.
func SharePeers(ctx context.Context, d Deps, nodes []Node, p Peers) ([]Result, error) {
	s := newSharing(d, nodes, p)
	if err := s.look(); err != nil || len(s.left) == 0 {
		return nil, err
	}
	for _, do := range []func(context.Context) error{s.give, s.converge, s.retire} {
		if err := do(ctx); err != nil {
			return s.all(), err
		}
	}
	return s.all(), nil
}

// PendingShares are the nodes that [SharePeers] would have something to do on. It asks no machine and writes nothing, so a
// plan can say it.
func PendingShares(d Deps, nodes []Node, p Peers) ([]string, error) {
	s := newSharing(d, nodes, p)
	var pending []string
	err := s.wanted(func(w reshare.Wish, have vault.ShareState) error {
		if !shared(have, w) {
			pending = append(pending, w.Node)
		}
		return nil
	})
	return pending, err
}

// shared says whether a node's peers hold what is wished, and nothing older is left.
func shared(have vault.ShareState, w reshare.Wish) bool {
	if have.Next != nil || have.Retiring {
		return false
	}
	if have.Current == nil || w.Threshold == 0 {
		return have.Current == nil && w.Threshold == 0
	}
	var holders []string
	for _, h := range have.Current.Holders() {
		holders = append(holders, h.Node)
	}
	return !have.Current.Spent && have.Current.Install == w.Install && have.Current.Threshold() == w.Threshold &&
		slices.Equal(slices.Sorted(slices.Values(holders)), slices.Sorted(slices.Values(w.Peers)))
}

func newSharing(d Deps, nodes []Node, p Peers) *sharing {
	if p.Most <= 0 {
		p.Most = defaultHolders
	}
	return &sharing{d: d, p: p, nodes: nodes, left: map[string]bool{}, touched: map[string]bool{}, results: map[string]Result{}}
}

// sharing is one call of SharePeers.
type sharing struct {
	d       Deps
	p       Peers
	nodes   []Node
	wishes  map[string]reshare.Wish
	left    map[string]bool // nodes that something is to be done on
	touched map[string]bool // nodes that hold shares of those, or did until now
	results map[string]Result
}

// look writes the wishes down and finds whom they change.
func (s *sharing) look() error {
	s.wishes = map[string]reshare.Wish{}
	return s.wanted(func(w reshare.Wish, before vault.ShareState) error {
		give, retire, err := reshare.Pending(s.p.Vault, w)
		s.wishes[w.Node] = w
		if give || retire {
			s.left[w.Node] = true
			s.touch(before)
		}
		return err
	})
}

// wanted goes through what is wished of every node that runs for good, beside what it has.
func (s *sharing) wanted(do func(reshare.Wish, vault.ShareState) error) error {
	var fleet []shares.Candidate
	installs := map[string]string{}
	for _, n := range s.nodes {
		state, err := s.d.Memory.NodeState(n.Name)
		if err != nil {
			return err
		}
		if state.Sealed && state.Quarantine == nil {
			installs[n.Name] = state.InstallRun
			fleet = append(fleet, shares.Candidate{Node: n.Name, PoP: n.PoP})
		}
	}
	for _, c := range fleet {
		before, err := s.p.Vault.Shares(c.Node)
		if err != nil {
			return err
		}
		if err := do(reshare.Wanted(c, installs[c.Node], fleet, s.p.Threshold, s.p.Most), before); err != nil {
			return err
		}
	}
	return nil
}

// touch remembers whose specs change with these shares.
func (s *sharing) touch(state vault.ShareState) {
	if state.Current == nil {
		return
	}
	for _, h := range state.Current.Holders() {
		s.touched[h.Node] = true
	}
}

// pick are the nodes of these names, in the fleet's order.
func (s *sharing) pick(names func(string) bool) []Node {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n Node) bool { return !names(n.Name) })
}

// keep takes results over; who failed is not asked for more.
func (s *sharing) keep(results []Result) {
	for _, r := range results {
		if was, ok := s.results[r.Node]; ok {
			r.Changed = r.Changed || was.Changed
			if r.Err == nil {
				r.Err = was.Err
			}
		}
		s.results[r.Node] = r
		if r.Err != nil {
			delete(s.left, r.Node)
		}
	}
}

func (s *sharing) all() (out []Result) {
	for _, n := range s.nodes {
		if r, ok := s.results[n.Name]; ok {
			out = append(out, r)
		}
	}
	return out
}

func (s *sharing) give(ctx context.Context) error {
	return s.onEach(ctx, func(ctx context.Context, n *node) error {
		_, err := reshare.Give(ctx, s.p.Vault, n.send, s.wishes[n.name])
		return err
	})
}

func (s *sharing) retire(ctx context.Context) error {
	return s.onEach(ctx, func(ctx context.Context, n *node) error {
		if why := s.tooEarly(n.name); why != "" {
			n.say(EventWarning, "older shares still open it: %s", why)
			return nil
		}
		_, err := reshare.Retire(ctx, s.p.Vault, n.send, n.name)
		return err
	})
}

// tooEarly says why older shares must stay: until enough holders have the new ones, they may be all that opens the node.
func (s *sharing) tooEarly(node string) string {
	state, err := s.p.Vault.Shares(node)
	if err != nil || state.Current == nil {
		return ""
	}
	have, lack := 0, []string{}
	for _, h := range state.Current.Holders() {
		if r, ok := s.results[h.Node]; ok && r.Err != nil {
			lack = append(lack, h.Node)
			continue
		}
		have++
	}
	if have >= state.Current.Threshold() {
		return ""
	}
	return fmt.Sprintf("%s could not be given the new ones", strings.Join(lack, ", "))
}

// onEach acts on the nodes that are left, side by side, and records anew what they boot from.
func (s *sharing) onEach(ctx context.Context, act func(context.Context, *node) error) error {
	d := s.d
	d.Compiler = nil // what they should look like does not matter here
	results, err := each(ctx, d, s.pick(func(name string) bool { return s.left[name] }), func(n *node, ctx context.Context) (Observation, error) {
		seen, err := n.see(ctx)
		if err != nil {
			return seen, err
		}
		if !runsSealed(seen.Stage) || seen.Facts == nil {
			return seen, errors.New("it does not run: its peers' shares stay as they are")
		}
		if err := n.unsuspected(seen); err != nil {
			return seen, err
		}
		if n.Lease != nil { // the machine key authorises the act: nobody is to exchange it meanwhile
			release, err := n.Lease(ctx, n.name)
			if err != nil {
				return seen, err
			}
			defer release()
		}
		n.changed = true
		return seen, n.changedByUs(ctx, seen, func() (bool, error) { return true, act(ctx, n) })
	})
	s.keep(results)
	return err
}

// spend says that the peers' key was put together in this boot's initramfs: it was outside of the operator's hands, as
// the machine key is at every unlock, and is exchanged likewise.
func (n *node) spend(seen Observation) error {
	if n.Spend == nil || seen.Facts.SpentShares == 0 {
		return nil
	}
	_, err := n.Spend(n.name, seen.Facts.SpentShares)
	return err
}

// unsuspected refuses a node that is not believed: it gets no key.
func (n *node) unsuspected(seen Observation) error {
	if n.Boots == nil {
		return nil
	}
	known, err := n.boots(seen)
	if err == nil && known.Suspect != nil {
		err = fmt.Errorf("%w: %s", ErrSuspect, known.Suspect.Why)
	}
	return err
}

// send is a call over a link that is made when there is none.
func (n *node) send(ctx context.Context, c remote.Call) error {
	if err := n.ensureSystemLink(ctx); err != nil {
		return err
	}
	return n.call(ctx, c)
}

// converge applies the specs of all who hold shares of the nodes that are left, or held some until now.
func (s *sharing) converge(ctx context.Context) error {
	if s.d.Compiler == nil {
		return errors.New("shares are given, and nothing says how the nodes get them")
	}
	for name := range s.left {
		state, err := s.p.Vault.Shares(name)
		if err != nil {
			return err
		}
		s.touch(state)
	}
	results, err := Up(ctx, s.d, s.pick(func(name string) bool { return s.touched[name] }))
	for _, r := range results { // whether a holder has its shares is its own matter; its ward may go on
		if was, ok := s.results[r.Node]; !ok || was.Err == nil {
			s.results[r.Node] = r
		}
	}
	return err
}
