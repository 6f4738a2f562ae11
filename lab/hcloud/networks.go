package hcloud

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// network is a private network. The lab keeps the books of it; machines have no second interface.
type network struct {
	ID      int64             `json:"id"`
	Name    string            `json:"name"`
	IPRange string            `json:"ip_range"`
	Subnets []subnet          `json:"subnets"`
	Routes  []route           `json:"routes"`
	Labels  map[string]string `json:"labels"`
	Protect bool              `json:"protect"`
	VSwitch bool              `json:"vswitch"`
	Created time.Time         `json:"created"`
}

type subnet struct {
	Type      string `json:"type"`
	IPRange   string `json:"ip_range"`
	Zone      string `json:"network_zone"`
	Gateway   string `json:"gateway"`
	VSwitchID *int64 `json:"vswitch_id"`
}

type route struct {
	Destination string `json:"destination"`
	Gateway     string `json:"gateway"`
}

type privateNet struct {
	Network  int64    `json:"network"`
	IP       string   `json:"ip"`
	AliasIPs []string `json:"alias_ips"`
	MAC      string   `json:"mac_address"`
}

type wireNetwork struct {
	ID                    int64             `json:"id"`
	Name                  string            `json:"name"`
	IPRange               string            `json:"ip_range"`
	Subnets               []subnet          `json:"subnets"`
	Routes                []route           `json:"routes"`
	Servers               []int64           `json:"servers"`
	LoadBalancers         []int64           `json:"load_balancers"`
	Protection            wireProtection    `json:"protection"`
	Labels                map[string]string `json:"labels"`
	ExposeRoutesToVSwitch bool              `json:"expose_routes_to_vswitch"`
	Created               time.Time         `json:"created"`
}

func (c *Cloud) wireNetwork(n *network) wireNetwork {
	w := wireNetwork{
		ID: n.ID, Name: n.Name, IPRange: n.IPRange, Subnets: append([]subnet{}, n.Subnets...), Routes: append([]route{}, n.Routes...),
		Servers: []int64{}, LoadBalancers: []int64{}, Protection: wireProtection{n.Protect}, Labels: n.Labels,
		ExposeRoutesToVSwitch: n.VSwitch, Created: n.Created,
	}
	for _, s := range c.state.servers() {
		if slices.ContainsFunc(s.Nets, func(p privateNet) bool { return p.Network == n.ID }) {
			w.Servers = append(w.Servers, s.ID)
		}
	}
	return w
}

// subnetIn checks a subnet and gives it its gateway: the network's first address.
func (n *network) subnetIn(s subnet) (subnet, error) {
	whole, err := netip.ParsePrefix(n.IPRange)
	if err != nil {
		return s, invalid(field("ip_range", "%v", err))
	}
	if s.IPRange == "" {
		s.IPRange = netip.PrefixFrom(whole.Addr(), max(whole.Bits(), 24)).String()
	}
	p, err := netip.ParsePrefix(s.IPRange)
	if err != nil || !whole.Contains(p.Addr()) || p.Bits() < whole.Bits() || p.Masked() != p {
		return s, invalid(field("ip_range", "%q is not a network inside %s", s.IPRange, n.IPRange))
	}
	for _, o := range n.Subnets {
		if q, err := netip.ParsePrefix(o.IPRange); err == nil && q.Overlaps(p) {
			return s, invalid(field("ip_range", "%s overlaps %s", p, q))
		}
	}
	if s.Type != "cloud" && s.Type != "server" {
		return s, invalid(field("type", "%q: expected cloud", s.Type))
	}
	if !slices.ContainsFunc(places(), func(p place) bool { return p.Zone == s.Zone }) {
		return s, invalid(field("network_zone", "%q not found", s.Zone))
	}
	s.Gateway = whole.Addr().Next().String()
	return s, nil
}

// join gives a server an address in the network, the wished one or the lowest free; Cloud.mu is held.
func (st *state) join(s *server, id int64, wish netip.Addr) error {
	n := st.Networks[id]
	switch {
	case n == nil:
		return invalid(field("network", "network %d not found", id))
	case slices.ContainsFunc(s.Nets, func(p privateNet) bool { return p.Network == id }):
		return fail(http.StatusConflict, "server_already_attached", "server is already attached to network")
	case len(n.Subnets) == 0:
		return fail(http.StatusConflict, "no_subnet_available", "network has no subnet")
	}
	ip, err := st.freeAddress(n, wish)
	if err != nil {
		return err
	}
	mac := fmt.Sprintf("86:00:00:%02x:%02x:%02x", byte(s.ID>>16), byte(s.ID>>8), byte(s.ID))
	s.Nets = append(s.Nets, privateNet{id, ip.String(), []string{}, mac})
	return nil
}

func (st *state) freeAddress(n *network, wish netip.Addr) (netip.Addr, error) {
	used := map[string]bool{}
	for _, s := range st.Servers {
		for _, p := range s.Nets {
			if p.Network == n.ID {
				used[p.IP] = true
			}
		}
	}
	for _, sub := range n.Subnets {
		p, err := netip.ParsePrefix(sub.IPRange)
		if err != nil {
			continue
		}
		used[sub.Gateway] = true
		if wish.IsValid() {
			if p.Contains(wish) && !used[wish.String()] {
				return wish, nil
			}
			continue
		}
		for a := p.Addr().Next(); p.Contains(a); a = a.Next() {
			if !used[a.String()] && p.Contains(a.Next()) { // the last one is the broadcast address
				return a, nil
			}
		}
	}
	return netip.Addr{}, fail(http.StatusConflict, "ip_not_available", "no such address is free in the network")
}

func (st *state) leave(s *server, id int64) error {
	before := len(s.Nets)
	s.Nets = slices.DeleteFunc(s.Nets, func(p privateNet) bool { return p.Network == id })
	if len(s.Nets) == before {
		return invalid(field("network", "server is not attached to network %d", id))
	}
	return nil
}

func (c *Cloud) listNetworks(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	labels := func(n *network) map[string]string { return n.Labels }
	return list(r, "networks", byID(c.state.Networks), labels, func(n *network) string { return n.Name }, c.wireNetwork)
}

func (c *Cloud) createNetwork(r *request) (any, error) {
	var in struct {
		Name    string            `json:"name"`
		IPRange string            `json:"ip_range"`
		Subnets []subnet          `json:"subnets"`
		Routes  []route           `json:"routes"`
		Labels  map[string]string `json:"labels"`
		VSwitch bool              `json:"expose_routes_to_vswitch"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	whole, err := netip.ParsePrefix(in.IPRange)
	if err != nil || !whole.Addr().IsPrivate() || whole.Masked() != whole {
		return nil, invalid(field("ip_range", "%q is not a private network", in.IPRange))
	}
	if in.Name == "" {
		return nil, invalid(field("name", "is missing"))
	}
	if err := checkLabels(in.Labels); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.networkNamed(in.Name) != nil {
		return nil, notUnique("network", in.Name)
	}
	n := &network{Name: in.Name, IPRange: in.IPRange, Routes: in.Routes, Labels: orEmpty(in.Labels), VSwitch: in.VSwitch, Created: time.Now().UTC()}
	for _, s := range in.Subnets {
		s, err := n.subnetIn(s)
		if err != nil {
			return nil, err
		}
		n.Subnets = append(n.Subnets, s)
	}
	n.ID = c.state.nextID()
	c.state.Networks[n.ID] = n
	c.save()
	return created(map[string]any{"network": c.wireNetwork(n)})
}

func (st *state) networkNamed(name string) *network {
	for _, n := range st.Networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (c *Cloud) getNetwork(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.state.Networks[r.id()]
	if n == nil {
		return nil, notFound("network", r.id())
	}
	return map[string]any{"network": c.wireNetwork(n)}, nil
}

func (c *Cloud) updateNetwork(r *request) (any, error) {
	var in struct {
		update
		VSwitch *bool `json:"expose_routes_to_vswitch"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.state.Networks[r.id()]
	if n == nil {
		return nil, notFound("network", r.id())
	}
	taken := func(name string) bool { o := c.state.networkNamed(name); return o != nil && o != n }
	if err := in.apply("network", &n.Name, &n.Labels, taken); err != nil {
		return nil, err
	}
	if in.VSwitch != nil {
		n.VSwitch = *in.VSwitch
	}
	c.save()
	return map[string]any{"network": c.wireNetwork(n)}, nil
}

func (c *Cloud) deleteNetwork(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.state.Networks[r.id()]
	switch {
	case n == nil:
		return nil, notFound("network", r.id())
	case n.Protect:
		return nil, fail(http.StatusLocked, "protected", "network deletion is protected")
	case len(c.wireNetwork(n).Servers) > 0:
		return nil, fail(http.StatusConflict, "resource_in_use", "servers are attached to the network")
	}
	delete(c.state.Networks, n.ID)
	c.save()
	return nil, nil
}

func (c *Cloud) networkActions(r *request) (any, error) {
	return c.actionsOf(r, resource{r.id(), "network"})
}

func (c *Cloud) addSubnet(r *request) (any, error) {
	var in subnet
	return c.networkAction(r, "add_subnet", &in, func(n *network) error {
		s, err := n.subnetIn(in)
		if err == nil {
			n.Subnets = append(n.Subnets, s)
		}
		return err
	})
}

func (c *Cloud) deleteSubnet(r *request) (any, error) {
	var in struct {
		IPRange string `json:"ip_range"`
	}
	return c.networkAction(r, "delete_subnet", &in, func(n *network) error {
		before := len(n.Subnets)
		n.Subnets = slices.DeleteFunc(n.Subnets, func(s subnet) bool { return s.IPRange == in.IPRange })
		if len(n.Subnets) == before {
			return invalid(field("ip_range", "subnet %q not found", in.IPRange))
		}
		return nil
	})
}

func (c *Cloud) protectNetwork(r *request) (any, error) {
	var in struct {
		Delete bool `json:"delete"`
	}
	return c.networkAction(r, "change_protection", &in, func(n *network) error { n.Protect = in.Delete; return nil })
}

func (c *Cloud) networkAction(r *request, command string, in any, do func(*network) error) (any, error) {
	if err := r.decode(in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.state.Networks[r.id()]
	if n == nil {
		return nil, notFound("network", r.id())
	}
	if err := do(n); err != nil {
		return nil, err
	}
	a := c.begin(command, "", nil, r.fault, resource{n.ID, "network"})
	c.save()
	return created(map[string]any{"action": c.wireAction(a)})
}
