package stack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/pulumi/pulumi-go-provider/infer"

	"popfleet/provision/provider"
)

// ReverseArgs are a reverse DNS entry's inputs, and its whole state. An empty IP is an address that the server does not
// have: there is nothing to set.
type ReverseArgs struct {
	Key      string `pulumi:"key"`
	Node     string `pulumi:"node"`
	Provider string `pulumi:"provider,optional"` // "" is Hetzner Cloud
	Server   string `pulumi:"server"`
	IP       string `pulumi:"ip"`
	Name     string `pulumi:"name"`
}

type reverseResource struct{ *cloud }

func (r *reverseResource) Annotate(a infer.Annotator) { a.SetToken("index", "ReverseDNS") }

// Create sets the name.
func (r *reverseResource) Create(ctx context.Context, req infer.CreateRequest[ReverseArgs]) (infer.CreateResponse[ReverseArgs], error) {
	in := req.Inputs
	return create(ctx, r.cloud, "ReverseDNS", in.Key, in, req.DryRun, func(ctx context.Context) (string, error) {
		return in.Key, r.set(ctx, in)
	})
}

func (r *reverseResource) set(ctx context.Context, in ReverseArgs) error {
	if in.IP == "" {
		return nil
	}
	if in.Provider == "" {
		return r.driver.SetReverse(ctx, in.Server, in.IP, in.Name)
	}
	p, err := r.at(in.Provider)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(in.IP)
	if err != nil {
		return fmt.Errorf("reverse dns of %s: %w", in.Node, err)
	}
	return p.SetReverse(ctx, in.Server, addr, in.Name)
}

// nameAt asks a dedicated server's provider.
func (r *reverseResource) nameAt(ctx context.Context, in ReverseArgs) (ReverseArgs, bool, error) {
	_, found, err := r.machine(ctx, in.Provider, in.Node)
	if err != nil || !found || in.IP == "" {
		return in, found, err
	}
	p, err := r.at(in.Provider)
	if err != nil {
		return in, false, err
	}
	addr, err := netip.ParseAddr(in.IP)
	if err != nil {
		return in, false, err
	}
	in.Name, err = p.Reverse(ctx, in.Server, addr)
	return in, true, err
}

// Read looks at the name through the server.
func (r *reverseResource) Read(ctx context.Context, req infer.ReadRequest[ReverseArgs, ReverseArgs]) (infer.ReadResponse[ReverseArgs, ReverseArgs], error) {
	return read(ctx, r.cloud, "ReverseDNS", req.Inputs.Provider, req.Inputs.Key, req, func(ctx context.Context, in ReverseArgs) (ReverseArgs, bool, error) {
		if in.Provider != "" {
			return r.nameAt(ctx, in)
		}
		s, ok, err := r.server(ctx, in.Server)
		switch in.IP {
		case text(s.Addr4):
			in.Name = s.Reverse4
		case text(s.Addr6):
			in.Name = s.Reverse6
		}
		return in, ok, err
	})
}

// Diff compares everything; a server that was rented anew brings another id and other addresses.
func (r *reverseResource) Diff(_ context.Context, req infer.DiffRequest[ReverseArgs, ReverseArgs]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(field{"server", old.Server, in.Server}, field{"ip", old.IP, in.IP}, field{"name", old.Name, in.Name}), nil
}

// Update sets the name.
func (r *reverseResource) Update(ctx context.Context, req infer.UpdateRequest[ReverseArgs, ReverseArgs]) (infer.UpdateResponse[ReverseArgs], error) {
	in := req.Inputs
	d, _ := r.Diff(ctx, infer.DiffRequest[ReverseArgs, ReverseArgs]{State: req.State, Inputs: in})
	return update(ctx, r.cloud, "ReverseDNS", in.Key, in, req.DryRun, d, func(ctx context.Context) error { return r.set(ctx, in) })
}

// Delete gives the provider's default name back; a server that is gone has none.
func (r *reverseResource) Delete(ctx context.Context, req infer.DeleteRequest[ReverseArgs]) (infer.DeleteResponse, error) {
	return remove(ctx, r.cloud, "ReverseDNS", req.State.Provider, req.State.Key, func(ctx context.Context) error {
		in := req.State
		in.Name = ""
		err := r.set(ctx, in)
		if errors.Is(err, provider.ErrNotFound) {
			return nil
		}
		return err
	})
}
