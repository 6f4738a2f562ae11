package ovh

import (
	"context"
	"errors"
	"net/netip"
	"net/url"

	"popfleet/provision/provider"
)

// machine is what OVH says of a server: dedicated.server.Dedicated, the parts that matter here. Values that may be null
// are zero then; OVH itself takes "" for null where it is written.
type machine struct {
	Name            string `json:"name"`
	CommercialRange string `json:"commercialRange"`
	Datacenter      string `json:"datacenter"`
	IP              string `json:"ip"`
	State           string `json:"state"`
	PowerState      string `json:"powerState"`
	BootID          int64  `json:"bootId"`
	BootScript      string `json:"bootScript"`
	RescueSSHKey    string `json:"rescueSshKey"`
	RescueMail      string `json:"rescueMail"`
	Monitoring      bool   `json:"monitoring"`
}

// addresses are those that [machine] does not have.
type addresses struct {
	block6 netip.Prefix
}

// addr6 is the one address of the block that a node uses.
func (a addresses) addr6() netip.Addr {
	if !a.block6.IsValid() || a.block6.IsSingleIP() {
		return a.block6.Addr()
	}
	return a.block6.Masked().Addr().Next()
}

func serverPath(service string) string { return "/dedicated/server/" + url.PathEscape(service) }

// machine reads a server.
func (d *Driver) machine(ctx context.Context, op, service string) (machine, error) {
	var m machine
	if !serviceName.MatchString(service) {
		return m, &Error{Op: op, Kind: provider.ErrNotFound, Hint: nameHint}
	}
	err := d.get(ctx, op, serverPath(service), &m)
	if errors.Is(err, provider.ErrNotFound) {
		return m, &Error{Op: op, Kind: provider.ErrNotFound, Hint: nameHint, Err: bare(err)}
	}
	return m, err
}

const nameHint = "the service name is the one in OVH's control panel (ns1234567.ip-192-0-2.eu), and the keys have to be of the account that has it"

// describe reads a server and what else a [provider.Server] tells. An expired one is described as far as it goes: it is
// still the node's machine.
func (d *Driver) describe(ctx context.Context, op, node, service string) (provider.Server, error) {
	m, err := d.machine(ctx, op, service)
	if errors.Is(err, provider.ErrExpired) {
		return provider.Server{ID: service, Node: node, Name: service, Trouble: "expired"}, nil
	}
	if err != nil {
		return provider.Server{}, err
	}
	return d.complete(ctx, op, node, service, m)
}

func (d *Driver) complete(ctx context.Context, op, node, service string, m machine) (provider.Server, error) {
	now, err := d.bootOf(ctx, op, service, m.BootID)
	if err != nil {
		return provider.Server{}, err
	}
	nets, err := d.addresses(ctx, op, service)
	if err != nil {
		return provider.Server{}, err
	}
	s := provider.Server{ID: service, Node: node, Name: m.Name, Type: m.CommercialRange, Location: m.Datacenter,
		Addr6: nets.addr6(), Off: m.PowerState == "poweroff", RescueEnabled: now.Type == "rescue"}
	s.Addr4, _ = netip.ParseAddr(m.IP)
	if m.State != "" && m.State != "ok" {
		s.Trouble = "state " + printable(m.State, 40)
	}
	return s, nil
}

// addresses reads the server's blocks once; they do not change while it is rented.
func (d *Driver) addresses(ctx context.Context, op, service string) (addresses, error) {
	d.mu.Lock()
	known, ok := d.nets[service]
	d.mu.Unlock()
	if ok {
		return known, nil
	}
	var blocks []string
	err := d.get(ctx, op+": its addresses", serverPath(service)+"/ips", &blocks)
	if err != nil && !absent(err) {
		return addresses{}, err
	}
	var found addresses
	for _, b := range blocks {
		p, err := netip.ParsePrefix(b)
		if err == nil && p.Addr().Is6() && !p.Addr().Is4In6() && !found.block6.IsValid() {
			found.block6 = p
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nets[service] = found
	return found, nil
}
