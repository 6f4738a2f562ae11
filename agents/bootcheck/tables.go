package bootcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"popfleet/playbooks/spec"
)

// tables looks at the system's own fstab and crypttab: a line that names nothing stops the boot behind the unlock,
// where nobody can log in to see it.
func tables(_ context.Context, n *node) spec.BootProof {
	errs := []error{n.fstab()}
	data, err := os.ReadFile(n.path("/etc/crypttab"))
	if err == nil {
		err = n.opensRoot(data, false)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("/etc/crypttab: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return failed("repair the line; `findmnt --verify` shows more", "%s", oneLine(err))
	}
	return passed("/etc/fstab and /etc/crypttab name what is there")
}

// mount is one line of fstab(5).
type mount struct {
	source, at, kind string
	options          []string
}

func parseFstab(data string) (mounts []mount, err error) {
	for line := range strings.Lines(data) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 || len(f) > 6 {
			return nil, fmt.Errorf("line %q has %d fields", line, len(f))
		}
		mounts = append(mounts, mount{f[0], f[1], f[2], strings.Split(f[3], ",")})
	}
	return mounts, nil
}

func (n *node) fstab() error {
	mounts, err := parseFstab(readString(n.path("/etc/fstab")))
	if err != nil {
		return fmt.Errorf("/etc/fstab: %w", err)
	}
	var errs []error
	for _, at := range []string{"/", "/boot"} {
		if !slices.ContainsFunc(mounts, func(m mount) bool { return m.at == at }) {
			errs = append(errs, fmt.Errorf("/etc/fstab has no line for %s", at))
		}
	}
	for _, m := range mounts {
		if err := n.sourceExists(m); err != nil {
			errs = append(errs, fmt.Errorf("/etc/fstab: %s: %w", m.at, err))
		}
	}
	return errors.Join(errs...)
}

// bySource are udev's links for the names that a line may use.
var bySource = map[string]string{"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}

func (n *node) sourceExists(m mount) error {
	required := !slices.Contains(m.options, "nofail") && !slices.Contains(m.options, "noauto") || m.at == "/boot"
	dev := m.source
	if kind, value, ok := strings.Cut(m.source, "="); ok {
		dir := bySource[kind]
		if dir == "" {
			return fmt.Errorf("source %q is not understood", m.source)
		}
		dev = filepath.Join("/dev/disk", dir, value)
	}
	switch {
	case !strings.HasPrefix(dev, "/dev/"):
		return nil // tmpfs and its like
	case m.at == "/" && dev != "/dev/mapper/fleet-root":
		return fmt.Errorf("the root is to be %s, not the encrypted one", m.source)
	case strings.HasPrefix(dev, "/dev/sd") || strings.HasPrefix(dev, "/dev/nvme") || strings.HasPrefix(dev, "/dev/vd"):
		return fmt.Errorf("%s is a name that may be another disk's after a reboot", m.source)
	}
	if _, err := os.Stat(n.path(dev)); err != nil && required {
		return fmt.Errorf("%s does not exist", m.source)
	}
	return nil
}
