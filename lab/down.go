package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"popfleet/lab/netns"
	"popfleet/lab/qemu"
)

const downTimeout = 2 * time.Minute

// removeIfDown ends a run that was asked to leave nothing behind.
func (d *daemon) removeIfDown() error {
	select {
	case <-d.down:
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	return errors.Join(d.delete(ctx), Remove(ctx, d.cfg))
}

// Remove deletes what a lab leaves on its host, alive or dead: processes of its machines, its namespace, its folder. It
// refuses a folder that does not look like a lab's.
func Remove(ctx context.Context, cfg Config) error {
	if !isLab(cfg) {
		if _, err := os.Stat(cfg.Dir); err == nil {
			return fmt.Errorf("%s does not look like a lab's folder: nothing was removed", cfg.Dir)
		}
		return nil
	}
	if !cfg.Scripted {
		if _, err := qemu.KillAll(cfg.machineDir()); err != nil {
			return err
		}
		if err := netns.Delete(ctx, cfg.Namespace); err != nil {
			return err
		}
	}
	return removeAll(ctx, cfg.Dir)
}

// removeAll tries again while somebody still writes there: the other of the two who remove, or a machine's last words.
func removeAll(ctx context.Context, dir string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := os.RemoveAll(dir)
		if !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

func isLab(cfg Config) bool {
	// The daemon and `fleet-lab down` remove at the same moment: a provider's books may be all that is left.
	for _, p := range []string{cfg.Socket(), cfg.statePath("hcloud"), cfg.statePath("robot"), cfg.statePath("ovh"), cfg.machineDir(), cfg.LogPath()} {
		if _, err := os.Lstat(p); err == nil {
			return filepath.Clean(cfg.Dir) != "/"
		}
	}
	return false
}
