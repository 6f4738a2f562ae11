package stack

import (
	"context"
	"fmt"

	"github.com/pulumi/pulumi-go-provider/infer"

	"popfleet/provision/provider"
)

// DedicatedArgs are the inputs of a dedicated server that was taken over: nothing about the machine itself is ours to say.
type DedicatedArgs struct {
	Key      string `pulumi:"key"`
	Node     string `pulumi:"node"`
	Provider string `pulumi:"provider"`
	Server   string `pulumi:"server"` // as the provider names it
	Fleet    string `pulumi:"fleet"`
}

// DedicatedState is a dedicated server in Pulumi's state.
type DedicatedState struct {
	DedicatedArgs
	Addr4 string `pulumi:"addr4"`
	Addr6 string `pulumi:"addr6"`
}

type dedicatedResource struct{ *cloud }

func (r *dedicatedResource) Annotate(a infer.Annotator) { a.SetToken("index", "DedicatedServer") }

func (c *cloud) at(name string) (provider.Provider, error) {
	p := c.dedicated[name]
	if p == nil {
		return nil, fmt.Errorf("no access to provider %s", name)
	}
	return p, nil
}

// Create takes the server over; it is never ordered here.
func (r *dedicatedResource) Create(ctx context.Context, req infer.CreateRequest[DedicatedArgs]) (infer.CreateResponse[DedicatedState], error) {
	in := req.Inputs
	r.rec.change(Change{Op: "take over", Kind: "DedicatedServer", Key: in.Key, Node: in.Node})
	if req.DryRun {
		return infer.CreateResponse[DedicatedState]{Output: DedicatedState{DedicatedArgs: in}}, nil
	}
	ctx, end := r.rec.begin(ctx, in.Key, "taking over")
	s, err := r.ensure(ctx, in)
	if end(err) != nil {
		return infer.CreateResponse[DedicatedState]{}, err
	}
	return infer.CreateResponse[DedicatedState]{ID: s.ID, Output: r.state(in, s)}, nil
}

func (r *dedicatedResource) ensure(ctx context.Context, in DedicatedArgs) (provider.Server, error) {
	p, err := r.at(in.Provider)
	if err != nil {
		return provider.Server{}, err
	}
	return p.Ensure(ctx, provider.Wanted{Fleet: in.Fleet, Node: in.Node, Server: in.Server})
}

func (r *dedicatedResource) state(in DedicatedArgs, s provider.Server) DedicatedState {
	r.rec.server(in.Node, ServerOutput{ID: s.ID, Addr4: s.Addr4, Addr6: s.Addr6})
	return DedicatedState{DedicatedArgs: in, Addr4: text(s.Addr4), Addr6: text(s.Addr6)}
}

// Read looks at the server; an empty id tells Pulumi that the contract is gone.
func (r *dedicatedResource) Read(ctx context.Context, req infer.ReadRequest[DedicatedArgs, DedicatedState]) (infer.ReadResponse[DedicatedArgs, DedicatedState], error) {
	in := req.Inputs
	asItWas := infer.ReadResponse[DedicatedArgs, DedicatedState](req)
	if r.held.why(in.Provider, "") != nil {
		return asItWas, nil
	}
	s, found, err := r.machine(ctx, in.Provider, in.Node)
	if err != nil {
		return asItWas, r.unread(ctx, in.Provider, in.Key, err)
	}
	if found && s.ID != req.ID { // the fleet file names another one now: Diff and Update see to that
		return asItWas, nil
	}
	if !found {
		r.rec.change(Change{Op: "vanished", Kind: "DedicatedServer", Key: in.Key, Node: in.Node})
		r.rec.gone(in.Node)
		return infer.ReadResponse[DedicatedArgs, DedicatedState]{}, nil
	}
	return infer.ReadResponse[DedicatedArgs, DedicatedState]{ID: req.ID, Inputs: in, State: r.state(in, s)}, nil
}

// Diff: another server for the same node is another machine.
func (r *dedicatedResource) Diff(_ context.Context, req infer.DiffRequest[DedicatedArgs, DedicatedState]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(field{"server", old.Server, in.Server}, field{"provider", old.Provider, in.Provider}), nil
}

// Update refuses: the disks of the old server still open.
func (r *dedicatedResource) Update(_ context.Context, req infer.UpdateRequest[DedicatedArgs, DedicatedState]) (infer.UpdateResponse[DedicatedState], error) {
	old, in := req.State, req.Inputs
	err := fmt.Errorf("%w: %s lives on %s server %s and the fleet file wants %s server %s (`fleet replace %s` moves it; `fleet down %s` gives it up)",
		ErrImmutable, in.Node, old.Provider, old.Server, in.Provider, in.Server, in.Node, in.Node)
	r.rec.change(Change{Op: "update", Kind: "DedicatedServer", Key: in.Key, Node: in.Node, Fields: []string{"server"}})
	r.rec.fail(in.Key, err)
	return infer.UpdateResponse[DedicatedState]{}, err
}

// Delete lets the server go, if that was allowed by name. Its contract goes on: what a person has to do is in the result.
func (r *dedicatedResource) Delete(ctx context.Context, req infer.DeleteRequest[DedicatedState]) (infer.DeleteResponse, error) {
	in := req.State
	if !r.allowed[in.Node] {
		err := refusal([]string{in.Node})
		r.rec.fail(in.Key, err)
		return infer.DeleteResponse{}, err
	}
	if err := r.held.why(in.Provider, ""); err != nil {
		r.rec.fail(in.Key, err)
		return infer.DeleteResponse{}, err
	}
	r.rec.change(Change{Op: "let go", Kind: "DedicatedServer", Key: in.Key, Node: in.Node})
	ctx, end := r.rec.begin(ctx, in.Key, "letting go")
	p, err := r.at(in.Provider)
	if err == nil {
		var steps []string
		steps, err = p.Release(ctx, req.ID)
		r.rec.remains(in.Node, steps)
	}
	if end(err) == nil {
		r.rec.gone(in.Node)
	}
	return infer.DeleteResponse{}, err
}
