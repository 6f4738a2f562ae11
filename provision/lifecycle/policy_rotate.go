package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// Rotation is the vault's side of exchanging a machine key. *vault.Vault has these methods.
type Rotation interface {
	MachineKey(name string) (vault.Rotation, error)
	BeginRotation(name string) (vault.Rotation, error)
	CommitRotation(name string, generation int) (vault.Rotation, error)
	EndRotation(name string, generation int) (vault.Rotation, error)
	SealMachineKey(name string, r vault.Rotation, p vault.Proven) ([]byte, error)
	AdoptMachineKey(name string, sealed []byte) (vault.Proven, vault.Rotation, error)
}

// rotationDue: once after every proven boot, and whenever one was cut.
func (n *node) rotationDue(good *vault.GoodBoot, boot string) (bool, error) {
	if n.Rotation == nil || good == nil || good.BootID != boot {
		return false, nil
	}
	if good.Rotated != boot {
		return true, nil
	}
	r, err := n.Rotation.MachineKey(n.name)
	return r.Phase != vault.RotationIdle, err
}

type rotationEvidence struct {
	Generation int      `json:"generation"`
	Slots      []string `json:"slots,omitempty"`
	Elsewhere  bool     `json:"elsewhere,omitempty"` // another copy of the vault had done it
}

// adopt learns what another copy of the vault left on the node: two controllers that share no folder both hold the key
// that opens the disk, once they have seen the node run.
func (n *node) adopt(ctx context.Context) (p vault.Proven, r vault.Rotation, err error) {
	var left spec.KeyBox
	if err := n.ensureSystemLink(ctx); err != nil {
		return p, r, err
	}
	if err := n.call(ctx, remote.Call{Op: spec.OpKeyBox, Result: &left}); err != nil {
		return p, r, err
	}
	if len(left.Box) == 0 {
		r, err = n.Rotation.MachineKey(n.name)
		return p, r, err
	}
	return n.Rotation.AdoptMachineKey(n.name, left.Box)
}

// leave tells other copies of the vault what the node boots from now.
func (n *node) leave(ctx context.Context, p vault.Proven) error {
	if n.Rotation == nil {
		return nil
	}
	r, err := n.Rotation.MachineKey(n.name)
	if err != nil {
		return err
	}
	box, err := n.Rotation.SealMachineKey(n.name, r, p)
	if err != nil {
		return err
	}
	return n.call(ctx, remote.Call{Op: spec.OpKeyBox, Spec: spec.KeyBox{Box: box}})
}

func proven(good *vault.GoodBoot) vault.Proven {
	if good == nil {
		return vault.Proven{}
	}
	return vault.Proven{BootID: good.BootID, Manifest: good.Manifest}
}

// told is what other copies are told between two boots: this one's key may not have been exchanged yet, and nobody must take
// it for exchanged.
func told(good *vault.GoodBoot) vault.Proven {
	if good == nil {
		return vault.Proven{}
	}
	return vault.Proven{BootID: good.Rotated, Manifest: good.Manifest}
}

// rotate exchanges the machine key. The order is what keeps the node openable: the next key is on the operator's disk
// before it leaves, in the machine's header and proven before it is called current, and called current before the old
// one is destroyed. Cut anywhere, the key that the vault calls current opens the disk, so a locked node is never handed
// a key on the chance that it might fit.
func (n *node) rotate(ctx context.Context, seen Observation) (any, error) {
	if n.Lease != nil {
		release, err := n.Lease(ctx, n.name)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	n.keys = nil // the machine key read before is not the current one for long
	p, r, err := n.adopt(ctx)
	if err != nil {
		return nil, err
	}
	if r.Phase == vault.RotationIdle && p.BootID == seen.Facts.BootID {
		return rotationEvidence{Generation: r.Generation, Elsewhere: true}, n.rotatedAfter(seen)
	}
	r, err = n.Rotation.BeginRotation(n.name)
	if err != nil {
		return nil, err
	}
	if r.Phase == vault.RotationAdding {
		n.waiting("the node to take its next machine key")
		if _, err := n.rotateStep(ctx, spec.Rotate{Step: spec.RotateAdd, Current: r.Current.Reveal(), Other: r.Next.Reveal()}); err != nil {
			return nil, err
		}
		if r, err = n.Rotation.CommitRotation(n.name, r.Generation); err != nil {
			return nil, err
		}
	}
	n.waiting("the node to destroy its last machine key")
	known, err := n.boots(seen)
	if err != nil {
		return nil, err
	}
	box, err := n.Rotation.SealMachineKey(n.name, r, proven(known.Good))
	if err != nil {
		return nil, err
	}
	done, err := n.rotateStep(ctx, spec.Rotate{Step: spec.RotateRetire, Current: r.Current.Reveal(), Other: r.Previous.Reveal(), Box: box})
	if err != nil {
		return nil, err
	}
	if r, err = n.Rotation.EndRotation(n.name, r.Generation); err != nil {
		return nil, err
	}
	evidence := rotationEvidence{Generation: r.Generation, Slots: done.Slots}
	n.audit(ctx, VerdictRotated, fmt.Sprintf("machine key %d is in force", r.Generation), evidence)
	return evidence, n.rotatedAfter(seen)
}

func (n *node) rotateStep(ctx context.Context, s spec.Rotate) (done spec.Rotated, err error) {
	if err := n.ensureSystemLink(ctx); err != nil {
		return done, err
	}
	s.Version, s.Node = 1, n.name
	err = n.call(ctx, remote.Call{Op: spec.OpRotate, Result: &done, Spec: s})
	if err == nil && len(done.Slots) == 0 {
		err = errors.New("the node reports no key slots")
	}
	return done, err
}

// rotatedAfter writes down that this boot's key is replaced.
func (n *node) rotatedAfter(seen Observation) error {
	_, err := n.Boots.UpdateUnlock(n.name, func(s *vault.UnlockState) error {
		if s.Good != nil && s.Good.Install == seen.state.InstallRun {
			s.Good.Rotated = s.Good.BootID
		}
		return nil
	})
	return err
}
