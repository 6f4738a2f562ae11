// Package bootkeep keeps a node able to come back: after whatever changed a kernel or an initramfs it makes the per-node
// parts of the boot anew where they are missing or not what they were, checks the whole (package bootcheck), keeps the
// result, and has systemd refuse a reboot as long as the check does not pass. It never touches what differs by right:
// kernels, initramfs and grub.cfg are the system's own. It also writes down what package runs change of what the node
// boots from, for the operator's side to judge.
package bootkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/bootcheck"
	"popfleet/agents/command"
	"popfleet/agents/hostkey"
	"popfleet/playbooks/spec"
)

// ResultDir and ResultFile are where the last check is kept, for the daemon and for people.
const (
	ResultDir  = "/var/lib/fleet/agent"
	ResultFile = "boot-check.json"
)

// lockFile keeps a package's hook, the timer and an operator apart; it ends with the boot.
const lockFile = "/run/fleet-boot.lock"

// Keeper works on one node.
type Keeper struct {
	Checker bootcheck.Checker
	Run     command.Runner
	Log     *slog.Logger
	// Manifest stands in for the Checker's in tests; nil is the real one.
	Manifest func(context.Context) (spec.BootManifest, error)
}

// New is a keeper of this machine.
func New(log *slog.Logger) Keeper {
	return Keeper{Checker: bootcheck.Checker{Run: command.System{}}, Run: command.System{}, Log: log}
}

func (k Keeper) path(p string) string { return filepath.Join("/", k.Checker.Host.Root, p) }

// Check checks, keeps the result, and lets systemd refuse or allow a reboot by it.
func (k Keeper) Check(ctx context.Context, req spec.BootCheckRequest) (spec.BootCheck, error) {
	unlock, err := k.lock()
	if err != nil {
		return spec.BootCheck{}, err
	}
	defer unlock()
	return k.check(ctx, req)
}

func (k Keeper) check(ctx context.Context, req spec.BootCheckRequest) (spec.BootCheck, error) {
	result, err := k.Checker.Check(ctx, req)
	if err != nil {
		return result, err
	}
	return result, errors.Join(k.record(result), k.guard(ctx, result.OK()))
}

// Keep repairs and checks. made names what was made anew; what could not be is found by the check.
func (k Keeper) Keep(ctx context.Context) (made []string, result spec.BootCheck, err error) {
	unlock, err := k.lock()
	if err != nil {
		return nil, result, err
	}
	defer unlock()
	if _, err := k.Run.Run(ctx, command.Cmd{Argv: bootchain.MountBoot()}); err != nil {
		k.Log.Warn("/boot is not mounted", "error", err)
	} else {
		made = append(k.nodePart(), k.loaders(ctx)...)
	}
	result, err = k.check(ctx, spec.BootCheckRequest{})
	return made, result, err
}

// nodePart writes the per-node part when it is not what it should be.
func (k Keeper) nodePart() []string {
	root := k.path("/")
	before, err := os.Stat(filepath.Join(root, bootchain.NodePartFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.Log.Warn("per-node part", "error", err)
		return nil
	}
	data, err := os.ReadFile(k.path(hostkey.InitramfsFile))
	if err != nil {
		k.Log.Warn("per-node part", "error", err)
		return nil
	}
	key, err := hostkey.Parse(data)
	if err == nil {
		_, err = bootchain.WriteNodePart(root, key.Private)
	}
	if err != nil {
		k.Log.Warn("per-node part", "error", err)
		return nil
	}
	if after, err := os.Stat(filepath.Join(root, bootchain.NodePartFile)); err == nil && (before == nil || !os.SameFile(before, after)) {
		return []string{bootchain.NodePartFile}
	}
	return nil
}

// loaders copies the image's boot loaders to every disk of the node that carries others.
func (k Keeper) loaders(ctx context.Context) (made []string) {
	disks, err := k.Checker.Disks()
	if err != nil {
		k.Log.Warn("boot loaders", "error", err)
		return nil
	}
	l, err := bootchain.ReadLoaders(k.path("/"))
	if err != nil {
		k.Log.Warn("boot loaders", "error", err)
		return nil
	}
	for _, d := range disks {
		if k.Checker.VerifyLoaders(l, d) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return made
		}
		if err := l.Install(d, k.path("/run/fleet-esp")); err != nil {
			k.Log.Warn("boot loaders", "disk", d.Serial, "error", err)
			continue
		}
		made = append(made, "boot loaders of disk "+d.Serial)
	}
	return made
}

// lock waits for whoever is at it; a check takes seconds.
func (k Keeper) lock() (unlock func(), err error) {
	f, err := os.OpenFile(k.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", lockFile, err)
	}
	return func() { f.Close() }, nil
}

// record keeps the result. The folder belongs to the agent's own user, so nothing in it is followed out of it.
func (k Keeper) record(result spec.BootCheck) error {
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.path(ResultDir), 0o755); err != nil {
		return err
	}
	dir, err := os.OpenRoot(k.path(ResultDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	const tmp = ResultFile + ".new"
	if err := dir.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return dir.Rename(tmp, ResultFile)
}
