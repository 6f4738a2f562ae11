package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// A package run on the node may bring another kernel. While the node runs in the boot that was proven, its own word of
// that is as good as its key: whoever could forge it is root on the open disk. After the next reboot it is worth nothing,
// because whoever changed the initramfs could write it (docs/decisions/017).

// VerdictRenewed: a package run changed what the node boots from, and that is recorded now.
const VerdictRenewed = "renewed"

// ErrPackageRun means that a package run is going on: what the node boots from may change any moment.
var ErrPackageRun = errors.New("a package run is under way on the node: try again when it is over")

// errUndeclared: what changed was not changed by package runs alone.
var errUndeclared = errors.New("what it boots from changed, not by package runs alone")

// renewalDue: the node says that a package run changed what it boots from, and nobody has judged that.
func renewalDue(known vault.UnlockState, seen Observation) bool {
	g, said := known.Good, seen.Facts.BootChanged
	return g != nil && known.Suspect == nil && g.BootID == seen.Facts.BootID && said != "" && said != g.Manifest && said != g.Declared
}

// renewWhenDue believes what package runs declared. That it can't is said, and is no reason to stop: the node is as it
// was, and what happened to it is seen after its next reboot.
func (n *node) renewWhenDue(ctx context.Context, known vault.UnlockState, seen Observation) error {
	if !renewalDue(known, seen) || n.attempts[OpRenewBoot] >= limits[OpRenewBoot] {
		return nil
	}
	err := n.act(ctx, n.want.operation(OpRenewBoot, seen), seen)
	if err == nil || ctx.Err() != nil {
		return err
	}
	n.say(EventWarning, "what it boots from was not recorded anew: %v", err)
	return nil
}

type renewal struct {
	BootID  string        `json:"boot_id"`
	From    string        `json:"from"`
	To      string        `json:"to"`
	Changed string        `json:"changed,omitempty"`
	Runs    []declaredRun `json:"runs,omitempty"`
}

type declaredRun struct {
	At       time.Time `json:"at"`
	Packages []string  `json:"packages"`
}

// renew records what package runs made of what the node boots from.
func (n *node) renew(ctx context.Context, seen Observation) (any, error) {
	if n.Lease != nil {
		release, err := n.Lease(ctx, n.name)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	said, err := n.bootChanges(ctx)
	if err != nil {
		return nil, err
	}
	known, err := n.boots(seen)
	if err != nil {
		return nil, err
	}
	good := known.Good
	switch {
	case good == nil || known.Suspect != nil:
		return nil, nil // somebody else came to a verdict meanwhile
	case said.Manifest == nil:
		return nil, n.judged(good, seen.Facts.BootChanged)
	case changes(good, *said.Manifest) == "": // recorded already, as after an upgrade of ours
		return renewal{BootID: good.BootID, From: good.Manifest, To: said.Manifest.Digest}, n.judged(good, seen.Facts.BootChanged)
	}
	runs, err := declared(good, seen.Facts.BootID, said)
	if err != nil {
		return nil, errors.Join(err, n.judged(good, seen.Facts.BootChanged))
	}
	return n.renewTo(ctx, seen, good, *said.Manifest, runs)
}

// renewed says whether package runs account for what changed since it was recorded, and records it then.
func (n *node) renewed(ctx context.Context, seen Observation) (bool, error) {
	done, err := n.renew(ctx, seen)
	if errors.Is(err, errUndeclared) {
		return false, nil
	}
	return done != nil, err
}

// declaredSince: another copy of the vault proved this boot, and package runs alone changed it to m since.
func (n *node) declaredSince(ctx context.Context, p vault.Proven, m spec.BootManifest) (bool, error) {
	said, err := n.bootChanges(ctx)
	if err != nil {
		return false, err
	}
	_, err = declared(&vault.GoodBoot{BootID: p.BootID, Manifest: p.Manifest}, p.BootID, said)
	return err == nil && said.Manifest.Digest == m.Digest, nil
}

// bootChanges waits until no package run is going on.
func (n *node) bootChanges(ctx context.Context) (said spec.BootChanges, err error) {
	n.waiting("a package run on the node to end")
	ctx, cancel := context.WithTimeoutCause(ctx, n.Pace.Of(runPatience), ErrPackageRun)
	defer cancel()
	for {
		if err := n.ensureSystemLink(ctx); err != nil {
			return said, err
		}
		said = spec.BootChanges{}
		if err := n.call(ctx, remote.Call{Op: spec.OpBootChanges, Result: &said}); err != nil {
			return said, err
		}
		if said.UnderWay == "" {
			return said, nil
		}
		if err := n.pause(ctx); err != nil {
			return said, fmt.Errorf("%s: %w", said.UnderWay, err)
		}
	}
}

// runPatience is short: a package run may take half an hour, and its node serves meanwhile.
const runPatience = 20 * time.Second

// declared finds the package runs that lead from what was recorded to what is there now, in the boot that was proven.
func declared(good *vault.GoodBoot, boot string, said spec.BootChanges) ([]spec.BootChange, error) {
	last := len(said.Changes) - 1
	switch {
	case last < 0 || said.Manifest == nil:
		return nil, fmt.Errorf("%w: none is declared", errUndeclared)
	case good.BootID != boot || said.BootID != boot:
		return nil, fmt.Errorf("%w: they are declared for boot %s, proven is %s", errUndeclared, said.BootID, good.BootID)
	case said.Changes[last].To != said.Manifest.Digest:
		return nil, fmt.Errorf("%w: it changed again after the last one", errUndeclared)
	}
	for i := last; ; i-- {
		why := changes(good, said.Changes[i].From)
		switch {
		case why == "":
			return said.Changes[i:], nil
		case i == 0:
			return nil, fmt.Errorf("%w: before %s: %s", errUndeclared, strings.Join(said.Changes[0].Packages, ", "), why)
		case said.Changes[i-1].To != said.Changes[i].From.Digest:
			return nil, fmt.Errorf("%w: it changed between two of them, before %s: %s", errUndeclared, strings.Join(said.Changes[i].Packages, ", "), why)
		}
	}
}

// renewTo takes m for good, as long as nobody came to another verdict meanwhile.
func (n *node) renewTo(ctx context.Context, seen Observation, good *vault.GoodBoot, m spec.BootManifest, runs []spec.BootChange) (any, error) {
	done := renewal{BootID: good.BootID, From: good.Manifest, To: m.Digest, Changed: changes(good, m)}
	var names []string
	for _, r := range runs {
		done.Runs = append(done.Runs, declaredRun{time.UnixMilli(r.UnixMilli).UTC(), r.Packages})
		names = append(names, r.Packages...)
	}
	files := byPath(m)
	maps.Copy(files, absent(good.Files, files))
	known, err := n.Boots.UpdateUnlock(n.name, func(s *vault.UnlockState) error {
		if !same(s.Good, good) || s.Suspect != nil {
			return errors.New("somebody else judged what it boots from meanwhile")
		}
		s.Good.Manifest, s.Good.Files, s.Good.Declared = m.Digest, files, m.Digest
		return nil
	})
	if err != nil {
		return nil, err
	}
	n.audit(ctx, VerdictRenewed, fmt.Sprintf("%s: package run of %s", done.Changed, few(names)), done)
	return done, n.vouch(ctx, known.Good)
}

// vouch leaves word for other copies of the vault, whose keys it takes first: theirs may be newer.
func (n *node) vouch(ctx context.Context, good *vault.GoodBoot) error {
	if n.Rotation == nil {
		return nil
	}
	p, _, err := n.adopt(ctx)
	if err != nil || p.Manifest == good.Manifest {
		return err
	}
	return n.leave(ctx, told(good))
}

// judged keeps a declaration from being judged again and again.
func (n *node) judged(good *vault.GoodBoot, said string) error {
	_, err := n.Boots.UpdateUnlock(n.name, func(s *vault.UnlockState) error {
		if same(s.Good, good) {
			s.Good.Declared = said
		}
		return nil
	})
	return err
}

// same says whether two records are of one boot and one manifest.
func same(a, b *vault.GoodBoot) bool {
	return a != nil && b != nil && a.Install == b.Install && a.BootID == b.BootID && a.Manifest == b.Manifest
}

// few names some and counts the rest.
func few(names []string) string {
	if len(names) > maxNamed {
		names = append(names[:maxNamed:maxNamed], fmt.Sprintf("and %d more", len(names)-maxNamed))
	}
	return strings.Join(names, ", ")
}
