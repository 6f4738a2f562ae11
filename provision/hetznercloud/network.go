package hetznercloud

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// NetworkSpec is a private network with one subnet for cloud servers.
type NetworkSpec struct {
	Name   string
	Labels map[string]string
	Range  string // 10.77.0.0/16
	Subnet string // 10.77.1.0/24
	Zone   string // eu-central
}

// Network is a private network as the project holds it.
type Network struct {
	ID     string
	Name   string
	Labels map[string]string
	Range  string
	Subnet string // the first cloud subnet; may be empty
	Zone   string
}

// EnsureNetwork returns the network with spec's labels, and creates it with its subnet when there is none.
func (d *Driver) EnsureNetwork(ctx context.Context, spec NetworkSpec) (Network, error) {
	k, err := d.networks(spec)
	if err != nil {
		return Network{}, &Error{Op: "create network " + spec.Name, Err: err}
	}
	n, err := ensure(ctx, d, k, spec.Name, spec.Labels)
	if err != nil {
		return Network{}, err
	}
	return networkOf(n), nil
}

func (d *Driver) networks(spec NetworkSpec) (kind[hcloud.Network], error) {
	_, ipRange, err := net.ParseCIDR(spec.Range)
	if err != nil {
		return kind[hcloud.Network]{}, fmt.Errorf("range: %w", err)
	}
	_, subnet, err := net.ParseCIDR(spec.Subnet)
	if err != nil {
		return kind[hcloud.Network]{}, fmt.Errorf("subnet: %w", err)
	}
	return kind[hcloud.Network]{
		name: "network",
		list: func(ctx context.Context, sel string) ([]*hcloud.Network, error) {
			return d.client.Network.AllWithOpts(ctx, hcloud.NetworkListOpts{ListOpts: hcloud.ListOpts{LabelSelector: sel}})
		},
		byName: func(ctx context.Context, name string) (*hcloud.Network, error) {
			n, _, err := d.client.Network.GetByName(ctx, name)
			return n, err
		},
		create: func(ctx context.Context) (*hcloud.Network, []*hcloud.Action, error) {
			n, _, err := d.client.Network.Create(ctx, hcloud.NetworkCreateOpts{
				Name: spec.Name, Labels: spec.Labels, IPRange: ipRange,
				Subnets: []hcloud.NetworkSubnet{{Type: hcloud.NetworkSubnetTypeCloud, IPRange: subnet,
					NetworkZone: hcloud.NetworkZone(spec.Zone)}},
			})
			return n, nil, err
		},
		labels: func(n *hcloud.Network) map[string]string { return n.Labels },
	}, nil
}

// Network reads a network by id; false means that it does not exist.
func (d *Driver) Network(ctx context.Context, id string) (Network, bool, error) {
	op := "read network " + id
	n, err := parseID(op, id)
	if err != nil {
		return Network{}, false, err
	}
	var network *hcloud.Network
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		network, _, err = d.client.Network.GetByID(ctx, n)
		return err
	})
	if err != nil || network == nil {
		return Network{}, false, err
	}
	return networkOf(network), true, nil
}

// UpdateNetwork changes name and labels; ranges stay what they were created with.
func (d *Driver) UpdateNetwork(ctx context.Context, id, name string, labels map[string]string) error {
	op := "update network " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.call(ctx, op, func(ctx context.Context) error {
		_, _, err := d.client.Network.Update(ctx, &hcloud.Network{ID: n}, hcloud.NetworkUpdateOpts{Name: name, Labels: labels})
		return err
	})
}

// DeleteNetwork removes a network; one that is gone is no error.
func (d *Driver) DeleteNetwork(ctx context.Context, id string) error {
	op := "delete network " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.remove(ctx, op, func(ctx context.Context) error {
		_, err := d.client.Network.Delete(ctx, &hcloud.Network{ID: n})
		return err
	})
}

func networkOf(n *hcloud.Network) Network {
	out := Network{ID: strconv.FormatInt(n.ID, 10), Name: n.Name, Labels: n.Labels}
	if n.IPRange != nil {
		out.Range = n.IPRange.String()
	}
	for _, s := range n.Subnets {
		if s.Type == hcloud.NetworkSubnetTypeCloud && s.IPRange != nil {
			out.Subnet, out.Zone = s.IPRange.String(), string(s.NetworkZone)
			break
		}
	}
	return out
}
