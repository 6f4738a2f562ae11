package hetznercloud

import (
	"context"
	"fmt"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/provision/provider"
)

// kind is how one kind of object is found and created; T is hcloud-go's type for it.
type kind[T any] struct {
	name   string // "firewall"
	list   func(ctx context.Context, selector string) ([]*T, error)
	byName func(ctx context.Context, name string) (*T, error)
	create func(ctx context.Context) (*T, []*hcloud.Action, error)
	labels func(*T) map[string]string
}

// ensure returns the object that carries labels, and creates it when there is none. It is safe to repeat after a lost
// reply: labels are written with the create and looked for before it, and a name that turns out to be taken is looked
// at and adopted when the labels say that it is ours.
func ensure[T any](ctx context.Context, d *Driver, k kind[T], name string, labels map[string]string) (*T, error) {
	op := fmt.Sprintf("create %s %s", k.name, name)
	if err := CheckLabels(labels); err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	var object *T
	var actions []*hcloud.Action
	err := d.call(ctx, op, func(ctx context.Context) (err error) {
		object, actions = nil, nil
		found, err := k.list(ctx, selector(identity(labels)))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			object, err = onlyOne(op, found)
			return err
		}
		object, actions, err = k.create(ctx)
		if codeOf(err) == hcloud.ErrorCodeUniquenessError {
			object, err = adopt(ctx, k, op, name, labels, err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := d.await(ctx, op, actions...); err != nil && !kindIs(err, provider.ErrActionGone) {
		return nil, err
	}
	return object, nil
}

func onlyOne[T any](op string, found []*T) (*T, error) {
	if len(found) > 1 {
		return nil, &Error{Op: op, Kind: provider.ErrAmbiguous, Err: fmt.Errorf("%d of them", len(found)),
			Hint: "look at them in the provider's console and remove the labels from those that are not wanted"}
	}
	return found[0], nil
}

func adopt[T any](ctx context.Context, k kind[T], op, name string, labels map[string]string, cause error) (*T, error) {
	object, err := k.byName(ctx, name)
	if err != nil {
		return nil, err
	}
	if object == nil || !carries(k.labels(object), identity(labels)) {
		return nil, &Error{Op: op, Kind: provider.ErrNameTaken, Err: cause,
			Hint: "rename or delete the other object, or give the fleet another name"}
	}
	return object, nil
}

// remove deletes an object that may be gone already, or still held for a moment by a server that is being deleted.
func (d *Driver) remove(ctx context.Context, op string, del func(context.Context) error) error {
	return d.call(ctx, op, func(ctx context.Context) error {
		err := del(ctx)
		switch codeOf(err) {
		case hcloud.ErrorCodeNotFound:
			return nil
		case hcloud.ErrorCodeResourceInUse:
			// The same answer as conflict in effect: the release of a deleted server lags behind.
			return hcloud.Error{Code: hcloud.ErrorCodeConflict, Message: err.Error()}
		}
		return err
	})
}
