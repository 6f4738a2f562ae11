package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// What happens after a key was handed over: the boot is proven, and then the key that was used is exchanged. Whoever
// recorded the key on its way, or has a copy of it, holds nothing that opens the disk's header as it is now; and whoever
// changed what the node boots from is found out before the next key is sent.

// Boots keeps what a node booted from when it was last believed. *vault.Vault has these methods.
type Boots interface {
	UnlockState(name string) (vault.UnlockState, error)
	UpdateUnlock(name string, change func(*vault.UnlockState) error) (vault.UnlockState, error)
}

// ErrSuspect means that a node runs, and did not boot from what was recorded: it gets no key until a person has looked.
var ErrSuspect = errors.New("the node is suspect")

// Verdicts that Deps.Audit hears of.
const (
	VerdictOpened  = "opened"  // the machine took its key
	VerdictGood    = "good"    // it booted from what was recorded
	VerdictSuspect = "suspect" // it did not
	VerdictRotated = "rotated" // the machine key was exchanged
)

// Prove proves the boot of a node that runs and is sealed, and exchanges its key, if that has not been done for this
// boot; any other node is left alone. It goes on with a rotation that was cut.
func Prove(ctx context.Context, d Deps, want Node) (Result, error) {
	d.Compiler = nil
	r, err := each(ctx, d, []Node{want}, func(n *node, ctx context.Context) (Observation, error) {
		seen, err := n.see(ctx)
		if err == nil {
			err = n.believe(ctx, seen)
		}
		return seen, err
	})
	if err != nil {
		return Result{}, err
	}
	return r[0], nil
}

// believe does what is due after a boot. A rotation that fails is said and is no reason to stop: the key that opens the
// disk is known whatever happened, and the next run goes on.
func (n *node) believe(ctx context.Context, seen Observation) error {
	if n.Boots == nil || !runsSealed(seen.Stage) || seen.Facts == nil {
		return nil
	}
	known, err := n.boots(seen)
	if err != nil {
		return err
	}
	switch {
	case known.Suspect != nil:
		return fmt.Errorf("%w since %s: %s", ErrSuspect, known.Suspect.Since.UTC().Format(time.RFC3339), known.Suspect.Why)
	case known.Good == nil || known.Good.BootID != seen.Facts.BootID || n.opened:
		if err := n.act(ctx, n.want.operation(OpProveBoot, seen), seen); err != nil {
			return err
		}
		if known, err = n.boots(seen); err != nil {
			return err
		}
	}
	if err := n.spend(seen); err != nil {
		return err
	}
	if err := n.rotateWhenDue(ctx, known, seen); err != nil {
		return err
	}
	return n.renewWhenDue(ctx, known, seen)
}

func (n *node) rotateWhenDue(ctx context.Context, known vault.UnlockState, seen Observation) error {
	due, err := n.rotationDue(known.Good, seen.Facts.BootID)
	if err != nil || !due {
		return err
	}
	if err := n.act(ctx, n.want.operation(OpRotateKey, seen), seen); err != nil {
		if ctx.Err() != nil {
			return err
		}
		n.say(EventWarning, "the machine key was not exchanged: %v", err)
	}
	return nil
}

func runsSealed(s Stage) bool { return s == Sealed || s == Converged || s == Serving }

// boots is what is known of the installation that was seen; what speaks of another one is left out.
func (n *node) boots(seen Observation) (vault.UnlockState, error) {
	known, err := n.Boots.UnlockState(n.name)
	if err != nil {
		return known, fmt.Errorf("read what is known of the boots of %s: %w", n.name, err)
	}
	if known.Good != nil && known.Good.Install != seen.state.InstallRun {
		known.Good = nil
	}
	if known.Suspect != nil && known.Suspect.Install != seen.state.InstallRun {
		known.Suspect = nil
	}
	return known, nil
}

type bootProof struct {
	BootID   string `json:"boot_id"`
	Manifest string `json:"manifest"`
	Files    int    `json:"files"`
	First    bool   `json:"first,omitempty"` // nothing was recorded before
}

// proveBoot compares what the node booted from with what was recorded when it was last believed. The link is pinned to
// the system's own host key, which lies on the encrypted disk.
func (n *node) proveBoot(ctx context.Context, seen Observation) (any, error) {
	known, err := n.boots(seen)
	if err != nil {
		return nil, err
	}
	m, err := n.manifest(ctx)
	if err != nil {
		return nil, err
	}
	boot := seen.Facts.BootID
	proof := bootProof{boot, m.Digest, len(m.Files), known.Good == nil}
	if why := n.doubt(known.Good, boot, m); why != "" {
		vouched, err := n.vouched(ctx, known.Good, boot, m)
		if err != nil {
			return proof, err
		}
		if !vouched {
			return proof, n.suspect(ctx, seen, m, why)
		}
	}
	good := &vault.GoodBoot{Install: seen.state.InstallRun, At: time.Now().UTC(), BootID: boot, Manifest: m.Digest, Files: byPath(m)}
	if known.Good != nil {
		maps.Copy(good.Files, absent(known.Good.Files, good.Files)) // what is on a disk that is missing must be so when it is back
	}
	if known.Good == nil || n.Rotation == nil {
		good.Rotated = boot // no key was handed over yet that a rotation would replace, or none is wanted
	} else {
		good.Rotated = known.Good.Rotated
	}
	if _, err := n.Boots.UpdateUnlock(n.name, func(s *vault.UnlockState) error {
		s.Good, s.Suspect, s.Expected = good, nil, nil
		return nil
	}); err != nil {
		return proof, err
	}
	n.opened = false
	n.audit(ctx, VerdictGood, "it booted from what was recorded", proof)
	return proof, nil
}

// doubt says why a boot is not believed; "" when it is.
func (n *node) doubt(good *vault.GoodBoot, boot string, m spec.BootManifest) string {
	switch {
	case good == nil:
		return ""
	case n.opened && good.BootID == boot:
		return "it took its key, and its boot is the one from before"
	}
	if changed := changes(good, m); changed != "" {
		if good.Changing != "" {
			changed += " (it restarted while a command of ours was changing it)"
		}
		return "what it boots from is not what was recorded: " + changed
	}
	return ""
}

// vouched: another copy of the vault left word on the node that it believes this manifest, as after an upgrade that was
// run from there. What makes a boot id doubtful, nobody can vouch for.
func (n *node) vouched(ctx context.Context, good *vault.GoodBoot, boot string, m spec.BootManifest) (bool, error) {
	if n.Rotation == nil || n.opened && good.BootID == boot {
		return false, nil
	}
	p, _, err := n.adopt(ctx)
	switch {
	case errors.Is(err, vault.ErrTampered):
		return false, nil
	case err != nil || p.Manifest == m.Digest || p.BootID != boot:
		return p.Manifest == m.Digest, err
	}
	return n.declaredSince(ctx, p, m)
}

func (n *node) suspect(ctx context.Context, seen Observation, m spec.BootManifest, why string) error {
	s := &vault.Suspicion{Install: seen.state.InstallRun, Since: time.Now().UTC(), Why: why, BootID: seen.Facts.BootID,
		Manifest: m.Digest, Files: byPath(m)}
	_, err := n.Boots.UpdateUnlock(n.name, func(u *vault.UnlockState) error { u.Suspect = s; return nil })
	n.audit(ctx, VerdictSuspect, why, map[string]string{"boot_id": s.BootID, "manifest": s.Manifest})
	return errors.Join(fmt.Errorf("%w: %s", ErrSuspect, why), err)
}

func (n *node) manifest(ctx context.Context) (m spec.BootManifest, err error) {
	n.waiting("the node to say what it boots from")
	ctx, cancel := context.WithTimeout(ctx, n.Pace.Of(time.Minute))
	defer cancel()
	if err := n.ensureSystemLink(ctx); err != nil {
		return m, err
	}
	if err := n.call(ctx, remote.Call{Op: spec.OpBootManifest, Result: &m}); err != nil {
		return m, err
	}
	if m.Digest == "" || len(m.Files) == 0 {
		return m, errors.New("the node reports an empty boot manifest")
	}
	return m, nil
}

// changedByUs brackets an act of ours that may change what the node boots from: the record is made anew behind it, also
// when the act failed half-way, unless somebody else had changed it before. An act that was cut with its link is known
// by the mark it leaves, as long as the node has not restarted: what happened to a disk while it was off is nobody's word.
func (n *node) changedByUs(ctx context.Context, seen Observation, act func() (changed bool, err error)) error {
	if n.Boots == nil || seen.Facts == nil || !runsSealed(seen.Stage) {
		_, err := act()
		return err
	}
	known, err := n.boots(seen)
	if err != nil {
		return err
	}
	if known.Good != nil {
		m, err := n.manifest(ctx)
		if err != nil {
			return err
		}
		changed := changes(known.Good, m)
		believed := changed == "" || known.Good.Changing == seen.Facts.BootID
		if !believed {
			if believed, err = n.vouched(ctx, known.Good, seen.Facts.BootID, m); err != nil {
				return err
			}
		}
		if !believed {
			if believed, err = n.renewed(ctx, seen); err != nil {
				return err
			}
		}
		if !believed {
			return n.suspect(ctx, seen, m, "what it boots from changed while it ran: "+changed)
		}
	}
	if known.Good == nil {
		_, err := act()
		return err
	}
	if err := n.mark(seen, seen.Facts.BootID); err != nil {
		return err
	}
	changed, err := act()
	switch {
	case ctx.Err() != nil: // the mark stays
		return err
	case err == nil && !changed && known.Good.Changing == "":
		return n.mark(seen, "")
	}
	return errors.Join(err, n.recordBoot(ctx, seen))
}

// mark says in which boot what the node boots from is being changed; "" when it is not.
func (n *node) mark(seen Observation, boot string) error {
	_, err := n.Boots.UpdateUnlock(n.name, func(s *vault.UnlockState) error {
		if s.Good != nil && s.Good.Install == seen.state.InstallRun {
			s.Good.Changing = boot
		}
		return nil
	})
	return err
}

// recordBoot takes what the node would boot from now for good.
func (n *node) recordBoot(ctx context.Context, seen Observation) error {
	m, err := n.manifest(ctx)
	if err != nil {
		return fmt.Errorf("record what it boots from: %w", err)
	}
	known, err := n.Boots.UpdateUnlock(n.name, func(s *vault.UnlockState) error {
		if s.Good != nil && s.Good.Install == seen.state.InstallRun {
			s.Good.Manifest, s.Good.Files, s.Good.Changing = m.Digest, byPath(m), ""
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.leave(ctx, told(known.Good))
}

func byPath(m spec.BootManifest) map[string]string {
	out := map[string]string{}
	for _, f := range m.Files {
		out[f.Path] = f.SHA256
	}
	return out
}

// changes names what is not as it was recorded. That a disk of a mirror is missing altogether is no change: what the node
// booted from is on the other one.
func changes(good *vault.GoodBoot, m spec.BootManifest) string {
	if good.Manifest == m.Digest {
		return ""
	}
	before, now := maps.Clone(good.Files), byPath(m)
	if len(before) == 0 {
		return "its digest is another"
	}
	for path := range absent(before, now) {
		delete(before, path)
	}
	return difference(before, now)
}

// absent are the recorded files of disks of which nothing is there now.
func absent(before, now map[string]string) map[string]string {
	there := map[string]bool{}
	for path := range now {
		there[diskOf(path)] = true
	}
	out := map[string]string{}
	for path, sum := range before {
		if d := diskOf(path); d != "" && !there[d] {
			out[path] = sum
		}
	}
	return out
}

// diskOf is "disk SERIAL" of a manifest's path, "" of one in /boot.
func diskOf(path string) string {
	if disk, _, found := strings.Cut(path, "/"); found && strings.HasPrefix(disk, "disk ") {
		return disk
	}
	return ""
}

// maxNamed bounds how many files one sentence names.
const maxNamed = 6

// difference names what is not the same.
func difference(before, now map[string]string) string {
	var words []string
	for _, path := range slices.Sorted(maps.Keys(now)) {
		switch old, there := before[path]; {
		case !there:
			words = append(words, path+" is new")
		case old != now[path]:
			words = append(words, path+" changed")
		}
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if _, there := now[path]; !there {
			words = append(words, path+" is gone")
		}
	}
	if len(words) > maxNamed {
		words = append(words[:maxNamed], fmt.Sprintf("and %d more", len(words)-maxNamed))
	}
	return strings.Join(words, ", ")
}

func (n *node) audit(ctx context.Context, verdict, why string, evidence any) {
	if n.Audit != nil {
		n.Audit(ctx, n.name, verdict, why, evidence)
	}
}
