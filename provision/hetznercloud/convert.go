package hetznercloud

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func kindIs(err, kind error) bool { return errors.Is(err, kind) }

func parseID(op, id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		return 0, &Error{Op: op, Err: fmt.Errorf("id %q: expected a positive number", id)}
	}
	return n, nil
}

func serverRef(op, id string) (*hcloud.Server, error) {
	n, err := parseID(op, id)
	if err != nil {
		return nil, err
	}
	return &hcloud.Server{ID: n}, nil
}

func serverOf(s *hcloud.Server) Server {
	out := Server{
		ID: strconv.FormatInt(s.ID, 10), Name: s.Name, Status: string(s.Status), Created: s.Created,
		RescueEnabled: s.RescueEnabled, Locked: s.Locked, Labels: s.Labels,
		Addr4: addrOf(s.PublicNet.IPv4.IP), Reverse4: s.PublicNet.IPv4.DNSPtr,
	}
	if n := s.PublicNet.IPv6.Network; n != nil {
		if addr, ok := netip.AddrFromSlice(n.IP); ok {
			ones, _ := n.Mask.Size()
			out.Net6 = netip.PrefixFrom(addr, ones).Masked()
			out.Addr6 = out.Net6.Addr().Next()
			out.Reverse6 = s.PublicNet.IPv6.DNSPtr[out.Addr6.String()]
		}
	}
	if s.ServerType != nil {
		out.ServerType = s.ServerType.Name
	}
	if s.Location != nil {
		out.Location = s.Location.Name
	}
	return out
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func createOptions(spec ServerSpec) (hcloud.ServerCreateOpts, error) {
	o := hcloud.ServerCreateOpts{
		Name: spec.Name, Labels: spec.Labels,
		ServerType:       &hcloud.ServerType{Name: spec.ServerType},
		Image:            &hcloud.Image{Name: spec.Image},
		Location:         &hcloud.Location{Name: spec.Location},
		StartAfterCreate: hcloud.Ptr(false), // rescue first: saves a boot and the early locked race
	}
	for _, id := range spec.SSHKeys {
		n, err := parseID("ssh key", id)
		if err != nil {
			return o, err
		}
		o.SSHKeys = append(o.SSHKeys, &hcloud.SSHKey{ID: n})
	}
	for _, id := range spec.Networks {
		n, err := parseID("network", id)
		if err != nil {
			return o, err
		}
		o.Networks = append(o.Networks, &hcloud.Network{ID: n})
	}
	for _, id := range spec.Firewalls {
		n, err := parseID("firewall", id)
		if err != nil {
			return o, err
		}
		o.Firewalls = append(o.Firewalls, &hcloud.ServerCreateFirewall{Firewall: hcloud.Firewall{ID: n}})
	}
	if spec.PlacementGroup != "" {
		n, err := parseID("placement group", spec.PlacementGroup)
		if err != nil {
			return o, err
		}
		o.PlacementGroup = &hcloud.PlacementGroup{ID: n}
	}
	return o, nil
}
