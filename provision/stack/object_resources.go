package stack

import (
	"context"
	"fmt"

	"github.com/pulumi/pulumi-go-provider/infer"

	"popfleet/provision/hetznercloud"
)

// SSHKeyArgs are a public key's inputs, and its whole state.
type SSHKeyArgs struct {
	Key       string            `pulumi:"key"`
	Name      string            `pulumi:"name"`
	PublicKey string            `pulumi:"publicKey"`
	Labels    map[string]string `pulumi:"labels"`
}

type sshKeyResource struct{ *cloud }

func (r *sshKeyResource) Annotate(a infer.Annotator) { a.SetToken("index", "SSHKey") }

// Create finds the key by its fingerprint or uploads it.
func (r *sshKeyResource) Create(ctx context.Context, req infer.CreateRequest[SSHKeyArgs]) (infer.CreateResponse[SSHKeyArgs], error) {
	in := req.Inputs
	return create(ctx, r.cloud, "SSHKey", in.Key, in, req.DryRun, func(ctx context.Context) (string, error) {
		k, err := r.driver.EnsureSSHKey(ctx, hetznercloud.SSHKeySpec{Name: in.Name, PublicKey: in.PublicKey, Labels: in.Labels})
		return k.ID, err
	})
}

// Read looks at the key.
func (r *sshKeyResource) Read(ctx context.Context, req infer.ReadRequest[SSHKeyArgs, SSHKeyArgs]) (infer.ReadResponse[SSHKeyArgs, SSHKeyArgs], error) {
	return read(ctx, r.cloud, "SSHKey", ProviderName, req.Inputs.Key, req, func(ctx context.Context, in SSHKeyArgs) (SSHKeyArgs, bool, error) {
		k, ok, err := r.driver.SSHKey(ctx, req.ID)
		in.Name, in.Labels = k.Name, k.Labels
		return in, ok, err
	})
}

// Diff compares; another public half is another key.
func (r *sshKeyResource) Diff(_ context.Context, req infer.DiffRequest[SSHKeyArgs, SSHKeyArgs]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(field{"name", old.Name, in.Name}, field{"labels", fmt.Sprint(old.Labels), fmt.Sprint(in.Labels)}), nil
}

// Update changes name and labels.
func (r *sshKeyResource) Update(ctx context.Context, req infer.UpdateRequest[SSHKeyArgs, SSHKeyArgs]) (infer.UpdateResponse[SSHKeyArgs], error) {
	in := req.Inputs
	d, _ := r.Diff(ctx, infer.DiffRequest[SSHKeyArgs, SSHKeyArgs]{State: req.State, Inputs: in})
	return update(ctx, r.cloud, "SSHKey", in.Key, in, req.DryRun, d, func(ctx context.Context) error {
		return r.driver.UpdateSSHKey(ctx, req.ID, in.Name, in.Labels)
	})
}

// Delete removes the key.
func (r *sshKeyResource) Delete(ctx context.Context, req infer.DeleteRequest[SSHKeyArgs]) (infer.DeleteResponse, error) {
	return remove(ctx, r.cloud, "SSHKey", ProviderName, req.State.Key, func(ctx context.Context) error { return r.driver.DeleteSSHKey(ctx, req.ID) })
}

// NetworkArgs are a private network's inputs, and its whole state.
type NetworkArgs struct {
	Key    string            `pulumi:"key"`
	Name   string            `pulumi:"name"`
	Range  string            `pulumi:"range"`
	Subnet string            `pulumi:"subnet"`
	Zone   string            `pulumi:"zone"`
	Labels map[string]string `pulumi:"labels"`
}

type networkResource struct{ *cloud }

func (r *networkResource) Annotate(a infer.Annotator) { a.SetToken("index", "Network") }

// Create finds the network by its labels or makes it.
func (r *networkResource) Create(ctx context.Context, req infer.CreateRequest[NetworkArgs]) (infer.CreateResponse[NetworkArgs], error) {
	in := req.Inputs
	return create(ctx, r.cloud, "Network", in.Key, in, req.DryRun, func(ctx context.Context) (string, error) {
		n, err := r.driver.EnsureNetwork(ctx, hetznercloud.NetworkSpec{Name: in.Name, Range: in.Range, Subnet: in.Subnet,
			Zone: in.Zone, Labels: in.Labels})
		return n.ID, err
	})
}

// Read looks at the network.
func (r *networkResource) Read(ctx context.Context, req infer.ReadRequest[NetworkArgs, NetworkArgs]) (infer.ReadResponse[NetworkArgs, NetworkArgs], error) {
	return read(ctx, r.cloud, "Network", ProviderName, req.Inputs.Key, req, func(ctx context.Context, in NetworkArgs) (NetworkArgs, bool, error) {
		n, ok, err := r.driver.Network(ctx, req.ID)
		in.Name, in.Labels = n.Name, n.Labels
		return in, ok, err
	})
}

// Diff compares name and labels; ranges never move (see rangeOf).
func (r *networkResource) Diff(_ context.Context, req infer.DiffRequest[NetworkArgs, NetworkArgs]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(field{"name", old.Name, in.Name}, field{"labels", fmt.Sprint(old.Labels), fmt.Sprint(in.Labels)}), nil
}

// Update changes name and labels.
func (r *networkResource) Update(ctx context.Context, req infer.UpdateRequest[NetworkArgs, NetworkArgs]) (infer.UpdateResponse[NetworkArgs], error) {
	in := req.Inputs
	d, _ := r.Diff(ctx, infer.DiffRequest[NetworkArgs, NetworkArgs]{State: req.State, Inputs: in})
	return update(ctx, r.cloud, "Network", in.Key, in, req.DryRun, d, func(ctx context.Context) error {
		return r.driver.UpdateNetwork(ctx, req.ID, in.Name, in.Labels)
	})
}

// Delete removes the network.
func (r *networkResource) Delete(ctx context.Context, req infer.DeleteRequest[NetworkArgs]) (infer.DeleteResponse, error) {
	return remove(ctx, r.cloud, "Network", ProviderName, req.State.Key, func(ctx context.Context) error { return r.driver.DeleteNetwork(ctx, req.ID) })
}

// PlacementArgs are a placement group's inputs, and its whole state.
type PlacementArgs struct {
	Key    string            `pulumi:"key"`
	Name   string            `pulumi:"name"`
	Labels map[string]string `pulumi:"labels"`
}

type placementResource struct{ *cloud }

func (r *placementResource) Annotate(a infer.Annotator) { a.SetToken("index", "PlacementGroup") }

// Create finds the group by its labels or makes it.
func (r *placementResource) Create(ctx context.Context, req infer.CreateRequest[PlacementArgs]) (infer.CreateResponse[PlacementArgs], error) {
	in := req.Inputs
	return create(ctx, r.cloud, "PlacementGroup", in.Key, in, req.DryRun, func(ctx context.Context) (string, error) {
		g, err := r.driver.EnsurePlacementGroup(ctx, hetznercloud.PlacementGroupSpec{Name: in.Name, Labels: in.Labels})
		return g.ID, err
	})
}

// Read looks at the group.
func (r *placementResource) Read(ctx context.Context, req infer.ReadRequest[PlacementArgs, PlacementArgs]) (infer.ReadResponse[PlacementArgs, PlacementArgs], error) {
	return read(ctx, r.cloud, "PlacementGroup", ProviderName, req.Inputs.Key, req, func(ctx context.Context, in PlacementArgs) (PlacementArgs, bool, error) {
		g, ok, err := r.driver.PlacementGroup(ctx, req.ID)
		in.Name, in.Labels = g.Name, g.Labels
		return in, ok, err
	})
}

// Diff compares name and labels.
func (r *placementResource) Diff(_ context.Context, req infer.DiffRequest[PlacementArgs, PlacementArgs]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(field{"name", old.Name, in.Name}, field{"labels", fmt.Sprint(old.Labels), fmt.Sprint(in.Labels)}), nil
}

// Update changes name and labels.
func (r *placementResource) Update(ctx context.Context, req infer.UpdateRequest[PlacementArgs, PlacementArgs]) (infer.UpdateResponse[PlacementArgs], error) {
	in := req.Inputs
	d, _ := r.Diff(ctx, infer.DiffRequest[PlacementArgs, PlacementArgs]{State: req.State, Inputs: in})
	return update(ctx, r.cloud, "PlacementGroup", in.Key, in, req.DryRun, d, func(ctx context.Context) error {
		return r.driver.UpdatePlacementGroup(ctx, req.ID, in.Name, in.Labels)
	})
}

// Delete removes the group.
func (r *placementResource) Delete(ctx context.Context, req infer.DeleteRequest[PlacementArgs]) (infer.DeleteResponse, error) {
	return remove(ctx, r.cloud, "PlacementGroup", ProviderName, req.State.Key, func(ctx context.Context) error { return r.driver.DeletePlacementGroup(ctx, req.ID) })
}
