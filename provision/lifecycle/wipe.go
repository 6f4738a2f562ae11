package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// Wipe destroys the key slots of nodes that are about to be given up, and proves it, from the booted system where there
// is one, else from rescue. A node without a server, or never installed, has nothing to wipe. Releasing the servers is
// the caller's, and only for results without an error.
func Wipe(ctx context.Context, d Deps, nodes []Node) ([]Result, error) {
	return each(ctx, d, nodes, (*node).wiped)
}

func (n *node) wiped(ctx context.Context) (Observation, error) {
	n.want.Converge, n.want.Serve = false, false
	seen, err := n.see(ctx)
	if seen.Stage == Quarantined {
		// Giving it up is a way out of quarantine. From rescue nothing of ours is told to what runs there, and the node's
		// own check of serials and marker keeps another machine's disks safe.
		n.say(EventWarning, "%v; its keys are destroyed from rescue", err)
		n.drop()
		err = nil
	}
	if err != nil {
		return seen, err
	}
	switch {
	case seen.Stage == Absent, !seen.Installed && !seen.Pending:
		return seen, nil
	case n.link == nil:
		if err := n.act(ctx, n.want.operation(OpEnterRescue, seen), seen); err != nil {
			return seen, err
		}
	}
	err = n.act(ctx, n.want.operation(OpWipe, seen), seen)
	var told *spec.Error
	if seen.Stage == Rescue || !errors.As(err, &told) || told.Code != spec.CodeWrongDisk {
		return seen, err
	}
	// A disk that fell out of a mirror still holds a header that opens. A restart may bring the disk back.
	n.say(EventWarning, "%v; looking for it from rescue", err)
	n.drop()
	if err := n.act(ctx, n.want.operation(OpEnterRescue, seen), seen); err != nil {
		return seen, err
	}
	return seen, n.act(ctx, n.want.operation(OpWipe, seen), seen)
}

func (n *node) wipe(ctx context.Context, seen Observation) (any, error) {
	if n.link == nil {
		return nil, errors.New("no connection to wipe over")
	}
	n.waiting("the node to destroy its key slots")
	var done spec.Wiped
	err := n.call(ctx, remote.Call{Op: spec.OpWipe, Result: &done,
		Spec: spec.Wipe{Version: 1, Node: n.name, Serials: seen.state.DiskSerials}})
	if err != nil {
		return nil, err
	}
	if done.SlotsLeft != 0 || len(done.Devices) == 0 && seen.Installed {
		return done, fmt.Errorf("the node reports %d key slots left on %v: not wiped", done.SlotsLeft, done.Devices)
	}
	return done, nil
}
