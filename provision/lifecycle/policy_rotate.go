package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"popfleet/inventory"
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
	Slots      []string `json:"slots"`
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
	r, err := n.Rotation.BeginRotation(n.name)
	if err != nil {
		return nil, err
	}
	if r.Phase == vault.RotationAdding {
		n.waiting("the node to take its next machine key")
		if _, err := n.rotateStep(ctx, spec.RotateAdd, r.Current, r.Next); err != nil {
			return nil, err
		}
		if r, err = n.Rotation.CommitRotation(n.name, r.Generation); err != nil {
			return nil, err
		}
	}
	n.waiting("the node to destroy its last machine key")
	done, err := n.rotateStep(ctx, spec.RotateRetire, r.Current, r.Previous)
	if err != nil {
		return nil, err
	}
	if r, err = n.Rotation.EndRotation(n.name, r.Generation); err != nil {
		return nil, err
	}
	evidence := rotationEvidence{r.Generation, done.Slots}
	n.audit(ctx, VerdictRotated, fmt.Sprintf("machine key %d is in force", r.Generation), evidence)
	return evidence, n.rotatedAfter(seen)
}

func (n *node) rotateStep(ctx context.Context, step string, current, other inventory.Secret) (done spec.Rotated, err error) {
	if err := n.ensureSystemLink(ctx); err != nil {
		return done, err
	}
	err = n.call(ctx, remote.Call{Op: spec.OpRotate, Result: &done,
		Spec: spec.Rotate{Version: 1, Node: n.name, Step: step, Current: current.Reveal(), Other: other.Reveal()}})
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
