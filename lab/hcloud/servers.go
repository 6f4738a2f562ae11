package hcloud

import (
	"net/http"
	"net/netip"
	"slices"
	"time"
)

type wireServer struct {
	ID              int64             `json:"id"`
	Name            string            `json:"name"`
	Status          string            `json:"status"`
	Created         time.Time         `json:"created"`
	PublicNet       wirePublicNet     `json:"public_net"`
	PrivateNet      []privateNet      `json:"private_net"`
	ServerType      wireServerType    `json:"server_type"`
	Image           *wireImage        `json:"image"`
	Location        wireLocation      `json:"location"`
	ISO             *struct{}         `json:"iso"`
	RescueEnabled   bool              `json:"rescue_enabled"`
	Locked          bool              `json:"locked"`
	BackupWindow    *string           `json:"backup_window"`
	OutgoingTraffic *int64            `json:"outgoing_traffic"`
	IngoingTraffic  *int64            `json:"ingoing_traffic"`
	IncludedTraffic int64             `json:"included_traffic"`
	Protection      wireServerGuard   `json:"protection"`
	Labels          map[string]string `json:"labels"`
	Volumes         []int64           `json:"volumes"`
	LoadBalancers   []int64           `json:"load_balancers"`
	PrimaryDiskSize int               `json:"primary_disk_size"`
	PlacementGroup  *wireGroup        `json:"placement_group"`
}

type wireServerGuard struct {
	Delete  bool `json:"delete"`
	Rebuild bool `json:"rebuild"`
}

type wirePublicNet struct {
	IPv4        *wireIPv4        `json:"ipv4"`
	IPv6        *wireIPv6        `json:"ipv6"`
	FloatingIPs []int64          `json:"floating_ips"`
	Firewalls   []wireServerWall `json:"firewalls"`
}

type wireIPv4 struct {
	ID      int64  `json:"id"`
	IP      string `json:"ip"`
	Blocked bool   `json:"blocked"`
	DNSPtr  string `json:"dns_ptr"`
}

type wireIPv6 struct {
	ID      int64    `json:"id"`
	IP      string   `json:"ip"`
	Blocked bool     `json:"blocked"`
	DNSPtr  []dnsPtr `json:"dns_ptr"`
}

type wireServerWall struct {
	ID     int64  `json:"id"`
	Status string `json:"status"`
}

// wireServer is the server as the API shows it; c.mu is held.
func (c *Cloud) wireServer(s *server) wireServer {
	t, _ := serverType(s.Type)
	img, _ := imageOf(s.Image)
	p, _ := placeOf(s.Location)
	w := wireServer{
		ID: s.ID, Name: s.Name, Status: s.Status, Created: s.Created, PublicNet: c.wirePublicNet(s),
		PrivateNet: slices.Clone(s.Nets), ServerType: t.wire(), Image: ptr(img.wire()), Location: p.wire(),
		RescueEnabled: s.rescueOn(time.Now()), Locked: c.running(s.ID), IncludedTraffic: 21990232555520,
		OutgoingTraffic: ptr(int64(0)), IngoingTraffic: ptr(int64(0)),
		Protection: wireServerGuard{s.Protect, s.Protect}, Labels: s.Labels, Volumes: []int64{}, LoadBalancers: []int64{},
		PrimaryDiskSize: t.DiskGB,
	}
	if w.PrivateNet == nil {
		w.PrivateNet = []privateNet{}
	}
	if g := c.state.Groups[s.Group]; g != nil {
		w.PlacementGroup = ptr(c.wireGroup(g))
	}
	return w
}

func (c *Cloud) wirePublicNet(s *server) wirePublicNet {
	w := wirePublicNet{FloatingIPs: []int64{}, Firewalls: []wireServerWall{}}
	if ip := c.state.PrimaryIPs[s.IPv4]; ip != nil {
		w.IPv4 = &wireIPv4{ID: ip.ID, IP: ip.IP, DNSPtr: ip.ptrOf(ip.IP)}
	}
	if ip := c.state.PrimaryIPs[s.IPv6]; ip != nil {
		w.IPv6 = &wireIPv6{ID: ip.ID, IP: ip.IP, DNSPtr: append([]dnsPtr{}, ip.DNSPtr...)}
	}
	for _, id := range s.Firewalls {
		w.Firewalls = append(w.Firewalls, wireServerWall{id, "applied"})
	}
	return w
}

// addresses are the server's public ones, zero where it has none; c.mu is held.
func (c *Cloud) addresses(s *server) (v4 netip.Addr, v6 netip.Prefix) {
	if ip := c.state.PrimaryIPs[s.IPv4]; ip != nil {
		v4, _ = netip.ParseAddr(ip.IP)
	}
	if ip := c.state.PrimaryIPs[s.IPv6]; ip != nil {
		v6, _ = netip.ParsePrefix(ip.IP)
	}
	return v4, v6
}

func (c *Cloud) listServers(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.state.servers()
	if want := r.query["status"]; len(want) > 0 {
		all = slices.DeleteFunc(all, func(s *server) bool { return !slices.Contains(want, s.Status) })
	}
	labels := func(s *server) map[string]string { return s.Labels }
	return list(r, "servers", all, labels, func(s *server) string { return s.Name }, c.wireServer)
}

func (c *Cloud) getServer(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state.Servers[r.id()]
	if s == nil {
		return nil, notFound("server", r.id())
	}
	return map[string]any{"server": c.wireServer(s)}, nil
}

type update struct {
	Name   *string            `json:"name"`
	Labels *map[string]string `json:"labels"`
}

func (c *Cloud) updateServer(r *request) (any, error) {
	var in update
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state.Servers[r.id()]
	if s == nil {
		return nil, notFound("server", r.id())
	}
	taken := func(n string) bool {
		return slices.ContainsFunc(c.state.servers(), func(o *server) bool { return o != s && o.Name == n })
	}
	if in.Name != nil && *in.Name != "" && !hostname.MatchString(*in.Name) {
		return nil, invalid(field("name", "%q is not a hostname as per RFC 1123", *in.Name))
	}
	if err := in.apply("server", &s.Name, &s.Labels, taken); err != nil {
		return nil, err
	}
	c.save()
	return map[string]any{"server": c.wireServer(s)}, nil
}

// apply changes a name and labels as an update asks.
func (u update) apply(what string, name *string, labels *map[string]string, taken func(string) bool) error {
	if u.Labels != nil {
		if err := checkLabels(*u.Labels); err != nil {
			return err
		}
	}
	if u.Name != nil && *u.Name != "" {
		if taken(*u.Name) {
			return notUnique(what, *u.Name)
		}
		*name = *u.Name
	}
	if u.Labels != nil {
		*labels = orEmpty(*u.Labels)
	}
	return nil
}

func (c *Cloud) deleteServer(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.free(r.id())
	if err != nil {
		return nil, err
	}
	if s.Protect {
		return nil, fail(http.StatusLocked, "protected", "server deletion is protected")
	}
	s.Status = "deleting"
	a := c.begin("delete_server", "", nil, r.fault, serverRes(s.ID))
	c.save()
	return map[string]any{"action": c.wireAction(a)}, nil
}

// forget removes a server from the books; c.mu is held. Primary IPs stay unless they go with their server.
func (c *Cloud) forget(s *server) {
	delete(c.state.Servers, s.ID)
	for id, ip := range c.state.PrimaryIPs {
		if ip.Assignee != s.ID {
			continue
		}
		if ip.Assignee = 0; ip.AutoDelete {
			delete(c.state.PrimaryIPs, id)
		}
	}
}

// free finds a server that no action holds; c.mu is held.
func (c *Cloud) free(id int64) (*server, error) {
	s := c.state.Servers[id]
	switch {
	case s == nil:
		return nil, notFound("server", id)
	case c.running(id):
		return nil, locked()
	}
	return s, nil
}
