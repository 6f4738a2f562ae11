package bootkeep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"popfleet/agents/command"
)

// guarded are the targets by which a machine starts anew. Powering off is nobody's accident, and is left alone.
var guarded = []string{"reboot.target", "kexec.target"}

// guardFile lies in /run: a machine that did come back begins without it.
const guardFile = "50-fleet-would-not-come-back.conf"

// guardText refuses `systemctl reboot`, `reboot`, `shutdown -r` and logind's reboot: all of them ask systemd to start
// reboot.target, and systemd turns the request down while nothing has been stopped yet. An inhibitor lock would not do:
// in systemd 252 root's requests pass it by; a unit ordered before the target could only fail when every service is
// down already (docs/decisions/010). `systemctl reboot --force`, which stops nothing cleanly, is not refused.
const guardText = `# The reboot check did not pass: see /var/lib/fleet/agent/boot-check.json.
# "fleet-agent check-reboot" checks again and takes this away; "systemctl reboot --force" passes it by.
[Unit]
Description=Reboot (refused: this node would not come back, run "fleet-agent check-reboot")
RefuseManualStart=yes
`

func (k Keeper) guardPath(target string) string {
	return filepath.Join(k.path("/run/systemd/system"), target+".d", guardFile)
}

// guard sets or takes away the refusal, and tells systemd only when something changed.
func (k Keeper) guard(ctx context.Context, comesBack bool) error {
	changed := false
	for _, t := range guarded {
		var did bool
		var err error
		if comesBack {
			did, err = remove(k.guardPath(t))
		} else {
			did, err = place(k.guardPath(t))
		}
		if err != nil {
			return fmt.Errorf("reboot guard: %w", err)
		}
		changed = changed || did
	}
	if !changed {
		return nil
	}
	if _, err := k.Run.Run(ctx, command.Cmd{Argv: []string{"systemctl", "daemon-reload"}}); err != nil {
		return fmt.Errorf("reboot guard: %w", err)
	}
	return nil
}

func place(path string) (did bool, err error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	return true, os.WriteFile(path, []byte(guardText), 0o644)
}

func remove(path string) (did bool, err error) {
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
