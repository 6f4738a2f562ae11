package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// A rescue system answers in 15–51 s; one in a hundred refused SSH for 90 s and then came up as the disk instead
// (facts/machines.md, B2). So: 90 s, the same again after a power cycle, then stop.
const rescuePatience = 90 * time.Second

type rescueEvidence struct {
	HostKey string `json:"host_key"`
	Trust   string `json:"trust"`
	BootID  string `json:"boot_id"`
	Cycles  int    `json:"power_cycles"`
}

// enterRescue boots rescue and proves it: the API may say rescue and boot the disk.
func (n *node) enterRescue(ctx context.Context, seen Observation) (any, error) {
	p, err := n.provider()
	if err != nil {
		return nil, err
	}
	for cycle := 0; ; cycle++ {
		n.rescueKey, n.entered = nil, true
		r := n.restart(cycle)
		r.Key = provider.SSHKey{Name: n.Fleet + "-fleet", Public: n.fleetKey.Public}
		rescue, err := p.EnterRescue(n.listening(ctx), seen.Server.ID, r)
		n.drop()
		if err != nil {
			return nil, err
		}
		n.origin = rescue.Origin
		err = n.awaitRescue(ctx, seen.Server, rescue)
		if err == nil {
			return n.arrived(seen, cycle)
		}
		switch {
		case ctx.Err() != nil || final(err):
			return nil, err
		case cycle == 2, cycle == 1 && errors.Is(err, ErrNoAnswer):
			return nil, &enough{fmt.Errorf("%w; rescue was asserted and the power cycled %d times", err, cycle+1)}
		}
		n.say(EventWarning, "%v; asserting rescue again with a power cycle", err)
	}
}

// arrived writes the key down, so that a later run knows this rescue system for what it is.
func (n *node) arrived(seen Observation, cycles int) (any, error) {
	key := n.link.conn.HostKey()
	s := seen.state
	s.Provider, s.ServerID = n.want.Node.Machine.Provider, seen.Server.ID
	s.Addresses = addresses(seen.Server)
	s.RescueHostKey, s.RescueOrigin = authorizedLine(key), string(n.origin)
	return rescueEvidence{HostKey: ssh.FingerprintSHA256(key), Trust: string(n.origin), Cycles: cycles}, n.remember(s)
}

// A system that is not rescue counts once it was seen at diskSeen looks in a row, the first of them diskGrace before the
// last: right after a reset the old system may answer once more, and a rescue system may let nobody in for a moment.
const (
	diskSeen  = 3
	diskGrace = 10 * time.Second
)

func (n *node) awaitRescue(ctx context.Context, s provider.Server, rescue provider.Rescue) error {
	trust := remote.FirstUse()
	if rescue.Origin != provider.FirstUse {
		trust = remote.PinnedByFingerprint(rescue.Fingerprints...)
	}
	patience, cancel := context.WithTimeoutCause(ctx, n.patience(rescuePatience), ErrNoAnswer)
	defer cancel()
	n.waiting("rescue to answer on %s", n.sshAddr(s))
	disk, first := 0, time.Time{}
	for {
		err := n.tryRescue(ctx, patience, s, trust)
		var wrong *remote.HostKeyError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &wrong):
			return err
		case errors.Is(err, ErrDiskBooted):
			if disk++; disk == 1 {
				first = time.Now()
			}
			if disk >= diskSeen && time.Since(first) >= n.Pace.Of(diskGrace) {
				return err
			}
		default:
			disk = 0
		}
		if perr := n.pause(patience); perr != nil {
			return fmt.Errorf("rescue did not come up: %w (last: %w)", perr, err)
		}
	}
}

// restart begins with asking the system where there is one that listens, and with the button where not: what runs there
// and does not know us has no reason to heed a gentler sign, and minutes would go by waiting for it.
func (n *node) restart(try int) provider.Restart {
	ask := n.asking()
	if ask == nil {
		try++
	}
	return provider.Restart{Ask: ask, Try: try}
}

// asking restarts the system that we are logged in to; nil when there is none.
func (n *node) asking() func(context.Context) error {
	if n.link == nil {
		return nil
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, n.Pace.Of(callTimeout))
		defer cancel()
		n.waiting("the system to restart by itself")
		return n.call(ctx, remote.Call{Op: spec.OpReboot})
	}
}

// tryRescue logs in once and asks whether it is rescue.
func (n *node) tryRescue(ctx, patience context.Context, s provider.Server, trust remote.Trust) error {
	err := n.connectWhile(ctx, patience, n.sshAddr(s), trust, n.rescueID)
	var auth *remote.AuthError
	if errors.As(err, &auth) {
		return fmt.Errorf("%w, or the restart had no effect: %s refuses the fleet's key", ErrDiskBooted, auth.Addr)
	}
	if err != nil {
		return err
	}
	f, err := n.facts(ctx)
	if err != nil {
		n.drop()
		return err
	}
	if !f.Rescue {
		n.drop()
		return fmt.Errorf("%w, or the restart had no effect: %q answers, boot %s", ErrDiskBooted, f.Hostname, f.BootID)
	}
	return nil
}

// bootDisk leaves rescue and waits until the installed system, locked or booted, shows one of its pinned keys.
func (n *node) bootDisk(ctx context.Context, seen Observation) (any, error) {
	p, err := n.provider()
	if err != nil {
		return nil, err
	}
	n.rescueKey, n.entered = nil, false
	err = p.BootDisk(n.listening(ctx), seen.Server.ID, n.restart(n.attempts[OpBootDisk]-1))
	n.drop()
	if err != nil {
		return nil, err
	}
	return n.answerOrReset(ctx, seen, anyDoor)
}

// waitAnswer waits for what is already booting.
func (n *node) waitAnswer(ctx context.Context, op Op, seen Observation) (any, error) {
	doors := anyDoor
	if op == OpWaitSystem {
		doors = systemDoor
	}
	return n.answerOrReset(ctx, seen, doors)
}

// doors says which answers end a wait.
type doors int

const (
	anyDoor    doors = iota // the unlock port, or the system
	systemDoor              // the system only
)

// patience is how long a machine of this kind may take for what a virtual one at a provider does in d.
func (n *node) patience(d time.Duration) time.Duration { return n.want.slowness().Of(d) }

// bootPatience is how long a machine may take from power-on to an answer; emulated ones took 20 s to dropbear and 123 s
// from there to SSH, at a pace of 4.
const bootPatience = 100 * time.Second

type bootEvidence struct {
	Answers string `json:"answers"` // system | unlock
	HostKey string `json:"host_key"`
	Resets  int    `json:"resets"`
}

// answerOrReset waits, resets the machine once a run when nothing comes, and waits again.
func (n *node) answerOrReset(ctx context.Context, seen Observation, d doors) (any, error) {
	for {
		e, err := n.awaitDoor(ctx, seen, d)
		if err == nil {
			e.Resets = n.resets
			return e, nil
		}
		if !errors.Is(err, ErrNoAnswer) || ctx.Err() != nil {
			return nil, err
		}
		if n.resets > 0 {
			return nil, &enough{fmt.Errorf("%w, nor after a reset: look at its console at the provider", err)}
		}
		p, perr := n.provider()
		if perr != nil {
			return nil, perr
		}
		n.resets++
		n.say(EventWarning, "%v; resetting it once", err)
		if err := p.Reset(n.listening(ctx), seen.Server.ID, provider.Restart{Try: n.resets}); err != nil {
			return nil, err
		}
		d = anyDoor // it boots from the start: locked again
	}
}

func (n *node) awaitDoor(ctx context.Context, seen Observation, d doors) (bootEvidence, error) {
	system, err := n.systemPins(seen.state)
	if err != nil {
		return bootEvidence{}, err
	}
	unlock, err := n.initramfsPins(seen.state)
	if err != nil {
		return bootEvidence{}, err
	}
	w := doorWatch{node: n, seen: seen, system: system, unlock: unlock, want: d, started: time.Now()}
	ctx, cancel := context.WithTimeoutCause(ctx, n.patience(bootPatience), ErrNoAnswer)
	defer cancel()
	if d == systemDoor {
		n.waiting("the system to answer on %s", n.sshAddr(seen.Server))
	} else {
		n.waiting("%s or %s to answer", n.unlockAddr(seen.Server), n.sshAddr(seen.Server))
	}
	for {
		e, done, err := w.look(ctx)
		if done || err != nil {
			return e, err
		}
		if err := n.pause(ctx); err != nil {
			return e, err
		}
	}
}

// doorWatch looks at both doors and judges who stands there.
type doorWatch struct {
	node           *node
	seen           Observation
	system, unlock []ssh.PublicKey
	want           doors
	started        time.Time
}

// grace is how long the system before a restart may still be seen after it.
const grace = 20 * time.Second

// look knocks at both at once: a machine whose network is down answers neither, and each knock lasts until its timeout.
func (w doorWatch) look(ctx context.Context) (e bootEvidence, done bool, err error) {
	n := w.node
	addr := n.sshAddr(w.seen.Server)
	other := make(chan remote.Door, 1)
	go func() { other <- n.look(ctx, n.unlockAddr(w.seen.Server)) }()
	door := n.look(ctx, addr)
	unlock := <-other
	late := time.Since(w.started) > n.Pace.Of(grace)
	switch {
	case oneOf(door.HostKey, w.system):
		return bootEvidence{Answers: "system", HostKey: door.Fingerprint()}, true, nil
	case isRescueKey(w.seen.state, door.HostKey):
		if late {
			return e, false, fmt.Errorf("rescue still answers on %s: %w", addr, ErrResetIgnored)
		}
		return e, false, nil
	}
	if err := judgeDoor(addr, door, w.system); err != nil {
		return e, false, err
	}
	return w.judgeUnlock(unlock, late)
}

func (w doorWatch) judgeUnlock(door remote.Door, late bool) (e bootEvidence, done bool, err error) {
	if err := judgeDoor(w.node.unlockAddr(w.seen.Server), door, w.unlock); err != nil {
		return e, false, err
	}
	if door.HostKey == nil {
		return e, false, nil
	}
	if w.want == systemDoor {
		if late {
			return e, false, ErrRelocked
		}
		return e, false, nil
	}
	return bootEvidence{Answers: "unlock", HostKey: door.Fingerprint()}, true, nil
}

func isRescueKey(s vault.NodeState, key ssh.PublicKey) bool {
	if key == nil || s.RescueHostKey == "" {
		return false
	}
	k, err := remote.ParseKey(s.RescueHostKey)
	return err == nil && remote.SameKey(k, key)
}
