package stack

import (
	"context"
	"net/netip"

	"github.com/pulumi/pulumi-go-provider/infer"
)

// The operations of all resources whose state is their inputs: record the change, report progress, do it.

func create[A any](ctx context.Context, c *cloud, kind, key string, in A, dryRun bool, do func(context.Context) (id string, err error)) (infer.CreateResponse[A], error) {
	c.rec.change(Change{Op: "create", Kind: kind, Key: key, Node: nodeOf(key)})
	if dryRun {
		return infer.CreateResponse[A]{Output: in}, nil
	}
	ctx, end := c.rec.begin(ctx, key, "creating")
	id, err := do(ctx)
	if end(err) != nil {
		return infer.CreateResponse[A]{}, err
	}
	return infer.CreateResponse[A]{ID: id, Output: in}, nil
}

// read returns what is there as new inputs and state; an empty id tells Pulumi that the object is gone. What can't be read
// stays as it was.
func read[A any](ctx context.Context, c *cloud, kind, at, key string, req infer.ReadRequest[A, A], look func(context.Context, A) (A, bool, error)) (infer.ReadResponse[A, A], error) {
	asItWas := infer.ReadResponse[A, A](req)
	if c.held.why(at, key) != nil {
		return asItWas, nil
	}
	now, ok, err := look(ctx, req.Inputs)
	if err != nil {
		return asItWas, c.unread(ctx, at, key, err)
	}
	if !ok {
		c.rec.change(Change{Op: "vanished", Kind: kind, Key: key, Node: nodeOf(key)})
		return infer.ReadResponse[A, A]{}, nil
	}
	return infer.ReadResponse[A, A]{ID: req.ID, Inputs: now, State: now}, nil
}

func update[A any](ctx context.Context, c *cloud, kind, key string, in A, dryRun bool, d infer.DiffResponse, do func(context.Context) error) (infer.UpdateResponse[A], error) {
	c.rec.change(Change{Op: "update", Kind: kind, Key: key, Node: nodeOf(key), Fields: sortedKeys(d.DetailedDiff)})
	if dryRun {
		return infer.UpdateResponse[A]{Output: in}, nil
	}
	ctx, end := c.rec.begin(ctx, key, "updating")
	if err := end(do(ctx)); err != nil {
		return infer.UpdateResponse[A]{}, err
	}
	return infer.UpdateResponse[A]{Output: in}, nil
}

func remove(ctx context.Context, c *cloud, kind, at, key string, do func(context.Context) error) (infer.DeleteResponse, error) {
	if err := c.held.why(at, ""); err != nil {
		c.rec.fail(key, err)
		return infer.DeleteResponse{}, err
	}
	c.rec.change(Change{Op: "delete", Kind: kind, Key: key, Node: nodeOf(key)})
	ctx, end := c.rec.begin(ctx, key, "deleting")
	return infer.DeleteResponse{}, end(do(ctx))
}

// text is an address, or "" for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
