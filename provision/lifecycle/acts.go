package lifecycle

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/pace"
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// rejoins is how often a cut connection is taken up again while the installation goes on by itself.
const rejoins = 10

type installEvidence struct {
	Run       string   `json:"run"`
	Wiped     []string `json:"wiped"`
	Serials   []string `json:"serials"`
	Image     string   `json:"image"`
	Initramfs string   `json:"initramfs_host_key"`
	System    string   `json:"system_host_key"`
	Rejoins   int      `json:"rejoins"`
}

// install sends the installation under an id that is on disk before it leaves, so that any later run joins it instead of
// erasing again, and keeps the host keys the machine made.
func (n *node) install(ctx context.Context, seen Observation) (any, error) {
	image, err := n.image(ctx)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	s, order, err := n.installOrder(seen, image)
	if err != nil {
		return nil, err
	}
	if err := n.remember(s); err != nil {
		return nil, err
	}
	n.waiting("installation %s", order.Run)
	var done spec.Installed
	cuts, err := n.installJoined(ctx, seen.Server, remote.Call{Op: spec.OpInstall, Spec: order, Result: &done, Blobs: image.Blobs})
	if err != nil {
		return nil, err
	}
	if err := judgeInstalled(done, order); err != nil {
		return nil, err
	}
	s.InitramfsHostKey, s.SystemHostKey = done.InitramfsHostKey, done.SystemHostKey
	s.LUKSUUID, s.DiskSerials, s.Sealed = done.LUKSUUID, serials(done.Disks), false
	return installEvidence{Run: order.Run, Wiped: done.Wiped, Serials: s.DiskSerials, Image: order.Image.SHA256,
		Initramfs: done.InitramfsHostKey, System: done.SystemHostKey, Rejoins: cuts}, n.remember(s)
}

// installOrder continues the run that was begun on this server, or begins one.
func (n *node) installOrder(seen Observation, image Image) (vault.NodeState, spec.Install, error) {
	k, err := n.secrets()
	if err != nil {
		return vault.NodeState{}, spec.Install{}, err
	}
	s := seen.state
	if !seen.Pending {
		s.InstallRun = newRunID()
	}
	var known []string
	if s.ServerID == seen.Server.ID {
		known = s.DiskSerials // another disk in the machine that was installed before is for a person to see
	}
	s.Provider, s.ServerID, s.Image = n.want.Node.Machine.Provider, seen.Server.ID, image.Blob.SHA256
	s.Addresses = addresses(seen.Server)
	s.RescueHostKey = authorizedLine(n.link.conn.HostKey())
	disks := n.want.Node.Machine.Disks
	return s, spec.Install{
		Version: 1, Node: n.name, Fleet: n.Fleet, Run: s.InstallRun, Serials: disks.Serials, KnownSerials: known, MinGB: disks.MinGB,
		Image: image.Blob, InstallKey: k.InstallKey.Reveal(), AuthorizedKeys: []string{n.fleetKey.Public},
		UserCA: n.userCA, Emulated: n.Pace >= pace.Emulated,
	}, nil
}

// installJoined follows the installation across cut connections, pinned to the key that rescue showed first.
func (n *node) installJoined(ctx context.Context, s provider.Server, c remote.Call) (cuts int, err error) {
	for {
		if err = n.call(ctx, c); err == nil || isReported(err) || ctx.Err() != nil || cuts == rejoins {
			return cuts, err
		}
		cuts++
		n.say(EventWarning, "%v; the installation goes on without us, joining it again", err)
		if err := n.rejoin(ctx, s); err != nil {
			return cuts, err
		}
	}
}

func (n *node) rejoin(ctx context.Context, s provider.Server) error {
	patience, cancel := context.WithTimeoutCause(ctx, n.Pace.Of(rescuePatience), ErrNoAnswer)
	defer cancel()
	for {
		err := n.connectWhile(ctx, patience, n.sshAddr(s), remote.Pinned(n.rescueKey), n.rescueID)
		var wrong *remote.HostKeyError
		if err == nil || errors.As(err, &wrong) {
			return err
		}
		if perr := n.pause(patience); perr != nil {
			return fmt.Errorf("rescue went away during the installation: %w (last: %w)", perr, err)
		}
	}
}

func judgeInstalled(done spec.Installed, order spec.Install) error {
	if done.Run != order.Run {
		return fmt.Errorf("the machine answers for installation %q, asked was %q", done.Run, order.Run)
	}
	initramfs, err := remote.ParseKey(done.InitramfsHostKey)
	if err != nil {
		return fmt.Errorf("reported initramfs host key: %w", err)
	}
	system, err := remote.ParseKey(done.SystemHostKey)
	if err != nil {
		return fmt.Errorf("reported system host key: %w", err)
	}
	if remote.SameKey(initramfs, system) {
		return errors.New("the machine reports one host key for initramfs and system; the initramfs one lies in clear on /boot")
	}
	return nil
}

// unlock hands over the key that fits the initramfs that answers: the install key until the node was sealed, the machine
// key from then on. Sealing adds the machine key before it replaces the initramfs host key and destroys the install key
// after, so the host key on the door tells which key works, wherever sealing was interrupted.
func (n *node) unlock(ctx context.Context, seen Observation) (any, error) {
	if n.Allow != nil {
		if err := n.Allow(ctx, n.want.Node, seen); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrHeld, err)
		}
	}
	pin, key, err := n.keyFor(seen)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	system, err := n.systemPins(seen.state)
	if err != nil {
		return nil, err
	}
	n.waiting("%s to take its key", n.unlockAddr(seen.Server))
	u := remote.Unlocking{
		Locked: remote.Locked{Addr: n.unlockAddr(seen.Server), HostKey: pin, Auth: n.rescueID, Timeout: n.Pace.Of(30 * time.Second)},
		System: n.sshAddr(seen.Server), SystemKeys: system,
		Patience: max(90*time.Second, n.Pace.Of(90*time.Second)), Settle: n.Pace.Of(15 * time.Second), Pause: n.Poll,
		Tell: func(text string) { n.waiting("%s to take its key: %s", n.unlockAddr(seen.Server), text) },
	}
	if n.Lease != nil {
		u.Lease = func(ctx context.Context) (func(), error) { return n.Lease(ctx, n.name) }
	}
	started := time.Now()
	if err := remote.Unlock(ctx, n.Dial, u, key); err != nil {
		return nil, err
	}
	took := time.Since(started)
	n.opened = seen.state.Sealed
	n.audit(ctx, VerdictOpened, "it took its key", unlockEvidence{ssh.FingerprintSHA256(pin), took.Seconds()})
	return unlockEvidence{ssh.FingerprintSHA256(pin), took.Seconds()}, n.initramfsEnds(ctx, seen.Server)
}

type unlockEvidence struct {
	HostKey string  `json:"host_key"`
	Seconds float64 `json:"seconds"`
}

// initramfsEnds waits until dropbear is gone: a look that still found it would send the key a second time.
func (n *node) initramfsEnds(ctx context.Context, s provider.Server) error {
	n.waiting("the initramfs to end")
	ctx, cancel := context.WithTimeoutCause(ctx, n.Pace.Of(time.Minute), ErrRelocked)
	defer cancel()
	for n.look(ctx, n.unlockAddr(s)).Open {
		if err := n.pause(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (n *node) keyFor(seen Observation) (ssh.PublicKey, []byte, error) {
	k, err := n.secrets()
	if err != nil {
		return nil, nil, err
	}
	pins, err := n.initramfsPins(seen.state)
	if err != nil {
		return nil, nil, err
	}
	for i, pin := range pins {
		if ssh.FingerprintSHA256(pin) != seen.HostKey {
			continue
		}
		if i == 0 { // the vault's own
			return pin, k.MachineKey.Reveal(), nil
		}
		return pin, k.InstallKey.Reveal(), nil
	}
	return nil, nil, fmt.Errorf("initramfs host key %s is not pinned", seen.HostKey)
}

// seal gives the node its lasting secrets, over the link pinned to its system host key.
func (n *node) seal(ctx context.Context, seen Observation) (any, error) {
	k, err := n.secrets()
	if err != nil {
		return nil, err
	}
	n.waiting("the node to take its lasting keys")
	var done spec.Sealed
	err = n.call(ctx, remote.Call{Op: spec.OpSeal, Result: &done, Spec: spec.Seal{
		Version: 1, Node: n.name, InstallKey: k.InstallKey.Reveal(), MachineKey: k.MachineKey.Reveal(),
		RecoveryKey: k.RecoveryKey.Reveal(), InitramfsHostKey: k.InitramfsHostKey.Private.Reveal(),
		SystemHostKey: k.SystemHostKey.Private.Reveal(),
	}})
	if err != nil {
		return nil, err
	}
	got, err := remote.ParseKey(done.SystemHostKey)
	if err != nil {
		return done, fmt.Errorf("sealed, but the reported system host key: %w", err)
	}
	if want, err := k.SystemHostKey.PublicKey(); err != nil || !remote.SameKey(got, want) {
		return done, errors.Join(err, fmt.Errorf("sealed, but it reports host key %s, given was %s", done.SystemHostKey, k.SystemHostKey.Public))
	}
	s := seen.state
	s.Sealed, s.BootID = true, seen.Facts.BootID
	s.SystemHostKey, s.InitramfsHostKey = k.SystemHostKey.Public, k.InitramfsHostKey.Public
	return done, n.remember(s)
}

// changes asks the node what differs from its spec; each hears of the diff events.
func (n *node) changes(ctx context.Context, each func(spec.Event)) ([]string, error) {
	want, _, err := n.Compiler.Compile(ctx, n.name)
	if err != nil {
		return nil, fmt.Errorf("compile the node's spec: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, n.Pace.Of(time.Minute))
	defer cancel()
	if each == nil {
		each = func(spec.Event) {}
	}
	var a spec.Applied
	err = n.call(ctx, remote.Call{Op: spec.OpPlan, Spec: want, Result: &a, Events: each})
	return a.Changed, err
}

// convergeRecorded applies the spec, which may bring another kernel or initramfs.
func (n *node) convergeRecorded(ctx context.Context, seen Observation) (evidence any, err error) {
	err = n.changedByUs(ctx, seen, func() (bool, error) {
		evidence, err = n.converge(ctx)
		a, _ := evidence.(spec.Applied)
		return len(a.Changed) > 0, err
	})
	return evidence, err
}

// converge applies the spec; a node that comes here was seen to differ from it.
func (n *node) converge(ctx context.Context) (any, error) {
	want, blobs, err := n.Compiler.Compile(ctx, n.name)
	if err != nil {
		return nil, fmt.Errorf("compile the node's spec: %w", err)
	}
	n.waiting("the node to apply its spec")
	var a spec.Applied
	if err := n.ensureSystemLink(ctx); err != nil {
		return nil, err
	}
	err = n.call(ctx, remote.Call{Op: spec.OpApply, Spec: want, Result: &a, Blobs: blobs})
	return a, err
}

// ensureSystemLink connects anew when a look before left no link.
func (n *node) ensureSystemLink(ctx context.Context) error {
	if n.link != nil {
		return nil
	}
	s, err := n.state()
	if err != nil {
		return err
	}
	pins, err := n.systemPins(s)
	if err != nil {
		return err
	}
	return n.connect(ctx, n.sshAddr(*n.server), remote.Pinned(pins...), n.systemID)
}

func (n *node) waitServing(ctx context.Context, seen Observation) error {
	for {
		err := n.Serving(ctx, n.want.Node, seen.Server)
		if err == nil {
			return nil
		}
		n.waiting("it to serve")
		if perr := n.pause(ctx); perr != nil {
			return fmt.Errorf("%w (last: %w)", perr, err)
		}
	}
}

func newRunID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func serials(disks []spec.Disk) []string {
	var out []string
	for _, d := range disks {
		out = append(out, d.Serial)
	}
	return out
}

func authorizedLine(k ssh.PublicKey) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(k)))
}
