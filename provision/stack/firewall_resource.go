package stack

import (
	"context"
	"fmt"

	"github.com/pulumi/pulumi-go-provider/infer"

	"popfleet/provision/hetznercloud"
)

// FirewallRule is one inbound rule in Pulumi's state.
type FirewallRule struct {
	Protocol    string `pulumi:"protocol"`
	Port        string `pulumi:"port"`
	Description string `pulumi:"description"`
}

// FirewallArgs are a firewall's inputs, and its whole state.
type FirewallArgs struct {
	Key    string            `pulumi:"key"`
	Name   string            `pulumi:"name"`
	Rules  []FirewallRule    `pulumi:"rules"`
	Labels map[string]string `pulumi:"labels"`
}

func (a FirewallArgs) spec() hetznercloud.FirewallSpec {
	spec := hetznercloud.FirewallSpec{Name: a.Name, Labels: a.Labels}
	for _, r := range a.Rules {
		spec.Rules = append(spec.Rules, hetznercloud.Rule(r))
	}
	return spec
}

type firewallResource struct{ *cloud }

func (r *firewallResource) Annotate(a infer.Annotator) { a.SetToken("index", "Firewall") }

// Create finds the firewall by its labels or makes it.
func (r *firewallResource) Create(ctx context.Context, req infer.CreateRequest[FirewallArgs]) (infer.CreateResponse[FirewallArgs], error) {
	in := req.Inputs
	return create(ctx, r.cloud, "Firewall", in.Key, in, req.DryRun, func(ctx context.Context) (string, error) {
		fw, err := r.driver.EnsureFirewall(ctx, in.spec())
		return fw.ID, err
	})
}

// Read looks at the firewall.
func (r *firewallResource) Read(ctx context.Context, req infer.ReadRequest[FirewallArgs, FirewallArgs]) (infer.ReadResponse[FirewallArgs, FirewallArgs], error) {
	return read(ctx, r.cloud, "Firewall", ProviderName, req.Inputs.Key, req, func(ctx context.Context, in FirewallArgs) (FirewallArgs, bool, error) {
		fw, ok, err := r.driver.Firewall(ctx, req.ID)
		in.Name, in.Labels, in.Rules = fw.Name, fw.Labels, []FirewallRule{}
		for _, rule := range fw.Rules {
			in.Rules = append(in.Rules, FirewallRule(rule))
		}
		return in, ok, err
	})
}

// Diff compares everything.
func (r *firewallResource) Diff(_ context.Context, req infer.DiffRequest[FirewallArgs, FirewallArgs]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(field{"name", old.Name, in.Name}, field{"labels", fmt.Sprint(old.Labels), fmt.Sprint(in.Labels)},
		field{"rules", fmt.Sprint(old.Rules), fmt.Sprint(in.Rules)}), nil
}

// Update changes everything in place.
func (r *firewallResource) Update(ctx context.Context, req infer.UpdateRequest[FirewallArgs, FirewallArgs]) (infer.UpdateResponse[FirewallArgs], error) {
	in := req.Inputs
	d, _ := r.Diff(ctx, infer.DiffRequest[FirewallArgs, FirewallArgs]{State: req.State, Inputs: in})
	return update(ctx, r.cloud, "Firewall", in.Key, in, req.DryRun, d, func(ctx context.Context) error {
		return r.driver.UpdateFirewall(ctx, req.ID, in.spec())
	})
}

// Delete removes the firewall.
func (r *firewallResource) Delete(ctx context.Context, req infer.DeleteRequest[FirewallArgs]) (infer.DeleteResponse, error) {
	return remove(ctx, r.cloud, "Firewall", ProviderName, req.State.Key, func(ctx context.Context) error { return r.driver.DeleteFirewall(ctx, req.ID) })
}
