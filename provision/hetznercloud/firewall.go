package hetznercloud

import (
	"context"
	"net"
	"strconv"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// Rule lets one kind of inbound traffic in, from everywhere.
type Rule struct {
	Protocol    string // tcp, udp, icmp
	Port        string // "443"; empty for icmp
	Description string
}

// FirewallSpec is the provider's packet filter in front of the nodes' own.
type FirewallSpec struct {
	Name   string
	Labels map[string]string
	Rules  []Rule
}

// Firewall is a firewall as the project holds it.
type Firewall struct {
	ID     string
	Name   string
	Labels map[string]string
	Rules  []Rule
}

// EnsureFirewall returns the firewall with spec's labels, and creates it when there is none.
func (d *Driver) EnsureFirewall(ctx context.Context, spec FirewallSpec) (Firewall, error) {
	fw, err := ensure(ctx, d, d.firewalls(spec), spec.Name, spec.Labels)
	if err != nil {
		return Firewall{}, err
	}
	return firewallOf(fw), nil
}

func (d *Driver) firewalls(spec FirewallSpec) kind[hcloud.Firewall] {
	return kind[hcloud.Firewall]{
		name: "firewall",
		list: func(ctx context.Context, sel string) ([]*hcloud.Firewall, error) {
			return d.client.Firewall.AllWithOpts(ctx, hcloud.FirewallListOpts{ListOpts: hcloud.ListOpts{LabelSelector: sel}})
		},
		byName: func(ctx context.Context, name string) (*hcloud.Firewall, error) {
			fw, _, err := d.client.Firewall.GetByName(ctx, name)
			return fw, err
		},
		create: func(ctx context.Context) (*hcloud.Firewall, []*hcloud.Action, error) {
			res, _, err := d.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{
				Name: spec.Name, Labels: spec.Labels, Rules: rulesTo(spec.Rules)})
			return res.Firewall, res.Actions, err
		},
		labels: func(fw *hcloud.Firewall) map[string]string { return fw.Labels },
	}
}

// Firewall reads a firewall by id; false means that it does not exist.
func (d *Driver) Firewall(ctx context.Context, id string) (Firewall, bool, error) {
	op := "read firewall " + id
	n, err := parseID(op, id)
	if err != nil {
		return Firewall{}, false, err
	}
	var fw *hcloud.Firewall
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		fw, _, err = d.client.Firewall.GetByID(ctx, n)
		return err
	})
	if err != nil || fw == nil {
		return Firewall{}, false, err
	}
	return firewallOf(fw), true, nil
}

// UpdateFirewall brings name, labels and rules of an existing firewall to spec.
func (d *Driver) UpdateFirewall(ctx context.Context, id string, spec FirewallSpec) error {
	op := "update firewall " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	ref := &hcloud.Firewall{ID: n}
	err = d.call(ctx, op, func(ctx context.Context) error {
		_, _, err := d.client.Firewall.Update(ctx, ref, hcloud.FirewallUpdateOpts{Name: spec.Name, Labels: spec.Labels})
		return err
	})
	if err != nil {
		return err
	}
	var actions []*hcloud.Action
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		actions, _, err = d.client.Firewall.SetRules(ctx, ref, hcloud.FirewallSetRulesOpts{Rules: rulesTo(spec.Rules)})
		return err
	})
	if err != nil {
		return err
	}
	return d.await(ctx, op, actions...)
}

// DeleteFirewall removes a firewall; one that is gone is no error.
func (d *Driver) DeleteFirewall(ctx context.Context, id string) error {
	op := "delete firewall " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.remove(ctx, op, func(ctx context.Context) error {
		_, err := d.client.Firewall.Delete(ctx, &hcloud.Firewall{ID: n})
		return err
	})
}

func firewallOf(fw *hcloud.Firewall) Firewall {
	out := Firewall{ID: strconv.FormatInt(fw.ID, 10), Name: fw.Name, Labels: fw.Labels}
	for _, r := range fw.Rules {
		if r.Direction != hcloud.FirewallRuleDirectionIn {
			continue
		}
		rule := Rule{Protocol: string(r.Protocol)}
		if r.Port != nil {
			rule.Port = *r.Port
		}
		if r.Description != nil {
			rule.Description = *r.Description
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

func rulesTo(rules []Rule) []hcloud.FirewallRule {
	anywhere := []net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
	out := make([]hcloud.FirewallRule, 0, len(rules))
	for _, r := range rules {
		rule := hcloud.FirewallRule{Direction: hcloud.FirewallRuleDirectionIn, SourceIPs: anywhere,
			Protocol: hcloud.FirewallRuleProtocol(r.Protocol), Description: hcloud.Ptr(r.Description)}
		if r.Port != "" {
			rule.Port = hcloud.Ptr(r.Port)
		}
		out = append(out, rule)
	}
	return out
}
