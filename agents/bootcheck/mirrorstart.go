package bootcheck

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"popfleet/playbooks/spec"
)

// mirrorScript starts the root's mirror when a disk is missing, before the key is asked for.
const (
	mirrorScript = "scripts/local-top/fleet-mirror"
	mirrorOrder  = "scripts/local-top/ORDER"
)

// What mirrorScript calls: two programs with libraries of their own, and applets that busybox is linked as. (busybox'
// own blkid can't look for a UUID, so that one must be a program.)
var (
	mirrorPrograms = []string{"mdadm", "blkid"}
	mirrorApplets  = []string{"sh", "sed", "cat", "sleep"}
)

// mirrorStart asks whether a mirror with a disk less would be started: without it the node comes back today, and not on
// the day a disk dies.
func mirrorStart(_ context.Context, n *node) spec.BootProof {
	if n.root.mirror == nil && n.rootErr == nil {
		return passed("one disk, no mirror to start")
	}
	if p, ok := n.withTree(); !ok {
		return p
	}
	var errs []error
	if _, ok := n.tree.Regular(mirrorScript); !ok {
		errs = append(errs, fmt.Errorf("no %s", mirrorScript))
	} else {
		errs = append(errs, n.mirrorInTime())
	}
	for _, p := range mirrorPrograms {
		errs = append(errs, n.runnable(p))
	}
	for _, a := range mirrorApplets {
		if !n.hasCommand(a) {
			errs = append(errs, fmt.Errorf("no %s", a))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return failed(doInitramfs+"; an image without "+path.Base(mirrorScript)+" needs the node replaced",
			"with a disk missing the root would not be started: %s", oneLine(err))
	}
	return passed("fleet-mirror starts the root with a disk less, before the key is asked for")
}

// mirrorInTime: behind cryptroot it would wait for a key that nobody is asked for yet.
func (n *node) mirrorInTime() error {
	e, _ := n.tree.Regular(mirrorOrder)
	lines := strings.Split(string(e.Data), "\n")
	at := func(name string) int {
		return slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "/scripts/local-top/"+name+" ") })
	}
	switch own, crypt := at("fleet-mirror"), at("cryptroot"); {
	case own < 0:
		return fmt.Errorf("%s does not start fleet-mirror", mirrorOrder)
	case crypt >= 0 && crypt < own:
		return fmt.Errorf("%s starts fleet-mirror after cryptroot", mirrorOrder)
	}
	return nil
}
