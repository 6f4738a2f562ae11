package lifecycle

import (
	"context"
	"sync"

	"popfleet/playbooks/spec"
)

// Proposal is what Up would do to one node, and what it was seen to be.
type Proposal struct {
	Node Node
	Seen Observation
	Plan []Operation
	Diff []spec.Event // of the remote plan, for people
	Err  error
}

// Propose observes nodes and plans, touching nothing.
func Propose(ctx context.Context, d Deps, nodes []Node, imageDigest string) ([]Proposal, error) {
	var mu sync.Mutex
	found := map[string]Proposal{}
	_, err := each(ctx, d, nodes, func(n *node, ctx context.Context) (Observation, error) {
		n.want.Image = imageDigest
		p := n.propose(ctx)
		mu.Lock()
		defer mu.Unlock()
		found[n.name] = p
		return p.Seen, p.Err
	})
	out := make([]Proposal, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, found[n.Name])
	}
	return out, err
}

func (n *node) propose(ctx context.Context) Proposal {
	p := Proposal{Node: n.want.Node}
	if p.Seen, p.Err = n.observe(ctx); p.Err != nil {
		return p
	}
	if p.Seen.Stage == Unknown || p.Seen.Stage == Quarantined {
		p.Err = p.Seen.Why
		return p
	}
	p.Plan = Plan(n.want, p.Seen)
	if n.want.Converge && len(p.Seen.Changes) > 0 {
		_, p.Err = n.changes(ctx, func(e spec.Event) {
			if e.Kind == spec.KindDiff {
				p.Diff = append(p.Diff, e)
			}
		})
	}
	return p
}

// Observe looks at one node and touches nothing.
func Observe(ctx context.Context, d Deps, want Node) (Observation, error) {
	f, err := newFleetRun(d)
	if err != nil {
		return Observation{}, err
	}
	n := f.node(want)
	defer n.drop()
	return n.observe(ctx)
}

// Unlock opens one node if it is locked, and waits for its system: the same code for the command, for Up and for the
// controller, which brings its own policy and lease in d.
func Unlock(ctx context.Context, d Deps, want Node) (Result, error) {
	d.Compiler = nil // looking at a booted node must not cost a plan
	r, err := each(ctx, d, []Node{want}, (*node).unlocked)
	if err != nil {
		return Result{}, err
	}
	return r[0], nil
}

func (n *node) unlocked(ctx context.Context) (Observation, error) {
	seen, err := n.see(ctx)
	if err != nil {
		return seen, err
	}
	if seen.Stage != Locked {
		return seen, n.believe(ctx, seen)
	}
	for _, op := range []Op{OpUnlock, OpWaitSystem} {
		if err := n.act(ctx, n.want.operation(op, seen), seen); err != nil {
			return seen, err
		}
	}
	if seen, err = n.see(ctx); err != nil {
		return seen, err
	}
	return seen, n.believe(ctx, seen)
}
