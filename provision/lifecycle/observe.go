package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// ErrQuarantined: a person keeps the node apart.
var ErrQuarantined = errors.New("put into quarantine")

// observe looks at the node. The error is for what prevents looking (provider, vault); what is wrong with the node
// itself is in the Observation.
func (n *node) observe(ctx context.Context) (Observation, error) {
	o := Observation{Node: n.name, Stage: Unknown, after: n.before}
	server, found, err := n.describe(ctx)
	if err != nil {
		return o, err
	}
	if !found {
		o.Stage = Absent
		return o, nil
	}
	remembered, err := n.state()
	if err != nil {
		return o, err
	}
	o.Server, o.state = server, aboutServer(remembered, server.ID)
	o.Installed = installed(o.state)
	o.Pending = o.state.InstallRun != "" && !o.Installed
	if q := o.state.Quarantine; q != nil {
		o.Stage, o.Why = Quarantined, fmt.Errorf("%w by %s on %s: %s (`fleet quarantine --lift %s` takes it back)",
			ErrQuarantined, q.By, q.At.UTC().Format("2006-01-02 15:04"), q.Why, n.name)
		return o, nil
	}
	switch {
	case server.Off:
		o.Stage = Rented
	case o.Installed:
		n.observeInstalled(ctx, &o)
	default:
		n.observeForeign(ctx, &o)
	}
	if o.Stage == Silent || o.Stage == Rented {
		n.server = nil // what the provider said may be old: ask again next time
	}
	if n.link != nil && o.Stage != Quarantined {
		o.HostKey = ssh.FingerprintSHA256(n.link.conn.HostKey())
	}
	return o, ctx.Err()
}

// reach makes the kept link fresh or connects anew, and asks for facts.
func (n *node) reach(ctx context.Context, addr string, trust remote.Trust, id ssh.Signer) (spec.Facts, error) {
	if n.link != nil {
		if f, err := n.facts(ctx); err == nil || isReported(err) {
			return f, err
		}
	}
	if err := n.connect(ctx, addr, trust, id); err != nil {
		return spec.Facts{}, err
	}
	return n.facts(ctx)
}

// observeInstalled looks at a node whose host keys are known: whoever shows another key is not touched.
func (n *node) observeInstalled(ctx context.Context, o *Observation) {
	pins, err := n.systemPins(o.state)
	if err != nil {
		o.Why = err
		return
	}
	addr := n.sshAddr(o.Server)
	f, err := n.reach(ctx, addr, remote.Pinned(pins...), n.systemID)
	var wrong *remote.HostKeyError
	var auth *remote.AuthError
	switch {
	case err == nil && f.Rescue: // a link kept from before the installation ended
		n.judgeRescue(o, f)
	case err == nil:
		o.Trust = "pinned"
		n.judgeSystem(ctx, o, f)
	case errors.As(err, &wrong) && n.isOurRescue(o.state, wrong):
		n.observeForeign(ctx, o)
	case errors.As(err, &wrong):
		o.Stage, o.HostKey, o.Why = Quarantined, wrong.Got, wrong
	case errors.As(err, &auth), isReported(err):
		o.Why = timeSuspect(err)
	default:
		n.observeUnlockPort(ctx, o, err)
	}
}

// isOurRescue: the key is the one that the rescue system showed while the node was installed, so it still runs.
func (n *node) isOurRescue(s vault.NodeState, e *remote.HostKeyError) bool {
	k, err := remote.ParseKey(s.RescueHostKey)
	if err != nil || ssh.FingerprintSHA256(k) != e.Got {
		return n.entered && n.rescueKey == nil
	}
	n.rescueKey = k
	return true
}

func (n *node) observeUnlockPort(ctx context.Context, o *Observation, why error) {
	addr := n.unlockAddr(o.Server)
	pins, err := n.initramfsPins(o.state)
	if err != nil {
		o.Why = err
		return
	}
	door := n.look(ctx, addr)
	if err := judgeDoor(addr, door, pins); err != nil {
		o.Stage, o.HostKey, o.Why = Quarantined, door.Fingerprint(), err
		return
	}
	if door.HostKey == nil {
		o.Stage, o.Why = Silent, why
		return
	}
	o.Stage, o.HostKey, o.Trust = Locked, door.Fingerprint(), "pinned"
}

// observeForeign looks at a machine that is not ours yet: its rescue system, or whatever the provider put on it. Its
// host key is taken on first use, said aloud, and pinned until it restarts.
func (n *node) observeForeign(ctx context.Context, o *Observation) {
	trust, ok := n.foreignTrust(o.state)
	if !ok {
		o.Stage = Rented
		return
	}
	f, err := n.reach(ctx, n.sshAddr(o.Server), trust, n.rescueID)
	var wrong *remote.HostKeyError
	switch {
	case errors.As(err, &wrong) && n.rescueKey != nil:
		o.Stage, o.HostKey, o.Why = Quarantined, wrong.Got, wrong
	case err != nil || !f.Rescue:
		n.drop()
		o.Stage, o.Why = Rented, err
	default:
		n.judgeRescue(o, f)
	}
}

func (n *node) judgeRescue(o *Observation, f spec.Facts) {
	o.Stage, o.Facts, o.Trust = Rescue, &f, n.rescueOrigin(o.state)
	if n.rescueKey == nil {
		n.rescueKey = n.link.conn.HostKey()
		if o.Trust == string(provider.FirstUse) {
			n.warnFirstUse()
		}
	}
	if o.Installed && !carries(f.Disks, o.state.InstallRun) {
		o.Stage = Quarantined
		o.Why = fmt.Errorf("%w: none of its disks is marked %s; was a disk replaced?", ErrForeignDisk, o.state.InstallRun)
	}
}

// foreignTrust: where the provider publishes the keys of its rescue system, nothing is taken on first use, not even for
// a look; a machine that shows no key we know enters rescue anew.
func (n *node) foreignTrust(s vault.NodeState) (remote.Trust, bool) {
	if n.rescueKey != nil {
		return remote.Pinned(n.rescueKey), true
	}
	if n.want.Node.Machine.Provider != provider.HetznerRobot {
		return remote.FirstUse(), true
	}
	k, err := remote.ParseKey(s.RescueHostKey)
	return remote.Pinned(k), err == nil
}

// rescueOrigin is how the key of the rescue system became known, in this run or in the one that entered it.
func (n *node) rescueOrigin(s vault.NodeState) string {
	switch {
	case n.origin != "":
		return string(n.origin)
	case s.RescueOrigin != "":
		return s.RescueOrigin
	}
	return string(provider.FirstUse)
}

func (n *node) warnFirstUse() {
	n.say(EventWarning, "rescue host key %s taken on first use (tofu): the provider publishes none; nothing that outlives the installation crosses this link",
		ssh.FingerprintSHA256(n.rescueKey))
}

func carries(disks []spec.Disk, run string) bool {
	for _, d := range disks {
		if d.Marker == run {
			return true
		}
	}
	return false
}

// judgeSystem takes a booted system's word for how far it is, and refuses one that can't be the node.
func (n *node) judgeSystem(ctx context.Context, o *Observation, f spec.Facts) {
	o.Facts = &f
	n.pass.knows(n.name, o.state.Image, f.Release)
	switch {
	case f.Node != n.name:
		o.Stage, o.Why = Quarantined, fmt.Errorf("%w: %q at %s", ErrWrongNode, f.Node, n.sshAddr(o.Server))
		return
	case !f.RootLUKS:
		o.Stage, o.Why = Quarantined, ErrNotEncrypted
		return
	case !f.Sealed || !o.state.Sealed:
		o.Stage = Booted
		return
	}
	o.Stage = Sealed
	if n.want.Converge {
		n.askChanges(ctx, o)
	}
}

func (n *node) askChanges(ctx context.Context, o *Observation) {
	changes, err := n.changes(ctx, nil)
	if err != nil {
		o.Why = fmt.Errorf("ask what differs: %w", err)
		return
	}
	o.Asked, o.Changes = true, changes
	if len(changes) > 0 {
		return
	}
	o.Stage = Converged
	if n.Serving == nil {
		o.Stage = Serving
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.Pace.Of(lookTimeout))
	defer cancel()
	if err := n.Serving(ctx, n.want.Node, o.Server); err != nil {
		o.Why = err
		return
	}
	o.Stage = Serving
}
