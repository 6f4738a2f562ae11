package hcloud

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// primaryIP is an address, or a /64, that a server may have.
type primaryIP struct {
	ID         int64             `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"` // ipv4 | ipv6
	IP         string            `json:"ip"`   // 198.18.0.10, 2001:db8:1:a::/64
	Assignee   int64             `json:"assignee,omitempty"`
	AutoDelete bool              `json:"auto_delete"`
	Location   string            `json:"location"`
	Labels     map[string]string `json:"labels"`
	DNSPtr     []dnsPtr          `json:"dns_ptr"`
	Created    time.Time         `json:"created"`
}

type dnsPtr struct {
	IP     string `json:"ip"`
	DNSPtr string `json:"dns_ptr"`
}

type wirePrimaryIP struct {
	ID           int64             `json:"id"`
	Name         string            `json:"name"`
	Type         string            `json:"type"`
	IP           string            `json:"ip"`
	AssigneeID   *int64            `json:"assignee_id"`
	AssigneeType string            `json:"assignee_type"`
	AutoDelete   bool              `json:"auto_delete"`
	Blocked      bool              `json:"blocked"`
	Location     wireLocation      `json:"location"`
	Labels       map[string]string `json:"labels"`
	Protection   wireProtection    `json:"protection"`
	DNSPtr       []dnsPtr          `json:"dns_ptr"`
	Created      time.Time         `json:"created"`
}

func (ip *primaryIP) wire() wirePrimaryIP {
	p, _ := placeOf(ip.Location)
	w := wirePrimaryIP{
		ID: ip.ID, Name: ip.Name, Type: ip.Type, IP: ip.IP, AssigneeType: "server", AutoDelete: ip.AutoDelete,
		Location: p.wire(), Labels: ip.Labels, DNSPtr: append([]dnsPtr{}, ip.DNSPtr...), Created: ip.Created,
	}
	if ip.Assignee != 0 {
		w.AssigneeID = ptr(ip.Assignee)
	}
	return w
}

func (ip *primaryIP) ptrOf(addr string) string {
	for _, d := range ip.DNSPtr {
		if d.IP == addr {
			return d.DNSPtr
		}
	}
	return ""
}

func (ip *primaryIP) holds(addr string) bool {
	if ip.Type == "ipv4" {
		return ip.IP == addr
	}
	p, err1 := netip.ParsePrefix(ip.IP)
	a, err2 := netip.ParseAddr(addr)
	return err1 == nil && err2 == nil && p.Contains(a)
}

// setPtr sets one name; without one, IPv4 falls back to the provider's default and IPv6 has none.
func (ip *primaryIP) setPtr(in reverse) {
	ip.DNSPtr = slices.DeleteFunc(ip.DNSPtr, func(d dnsPtr) bool { return d.IP == in.IP })
	switch {
	case in.DNSPtr != nil && *in.DNSPtr != "":
		ip.DNSPtr = append(ip.DNSPtr, dnsPtr{in.IP, *in.DNSPtr})
	case ip.Type == "ipv4":
		ip.DNSPtr = append(ip.DNSPtr, defaultPtr(in.IP))
	}
}

func defaultPtr(ip string) dnsPtr { return dnsPtr{ip, "static." + ip + ".clients.lab.test"} }

// The lab's addresses: RFC 2544's benchmarking block and RFC 3849's documentation block, which lead nowhere.
const (
	firstHost = 10
	lastHost  = 65000
)

// newPrimaryIP takes the lowest free address; c.mu is held.
func (st *state) newPrimaryIP(kind, location string) (*primaryIP, error) {
	used := map[string]bool{}
	for _, ip := range st.PrimaryIPs {
		used[ip.IP] = true
	}
	for n := firstHost; n <= lastHost; n++ {
		if n%256 == 0 || n%256 == 255 {
			continue
		}
		text := fmt.Sprintf("198.18.%d.%d", n/256, n%256)
		if kind == "ipv6" {
			text = fmt.Sprintf("2001:db8:1:%x::/64", n)
		}
		if used[text] {
			continue
		}
		id := st.nextID()
		ip := &primaryIP{
			ID: id, Name: "primary_ip-" + strconv.FormatInt(id, 10), Type: kind, IP: text, Location: location,
			Labels: map[string]string{}, Created: time.Now().UTC(),
		}
		if kind == "ipv4" {
			ip.DNSPtr = []dnsPtr{defaultPtr(text)}
		}
		st.PrimaryIPs[id] = ip
		return ip, nil
	}
	return nil, fail(http.StatusPreconditionFailed, "resource_unavailable", "no free address")
}

func (c *Cloud) listPrimaryIPs(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := byID(c.state.PrimaryIPs)
	if want := r.query.Get("ip"); want != "" {
		all = slices.DeleteFunc(all, func(ip *primaryIP) bool { return ip.IP != want })
	}
	labels := func(ip *primaryIP) map[string]string { return ip.Labels }
	return list(r, "primary_ips", all, labels, func(ip *primaryIP) string { return ip.Name }, (*primaryIP).wire)
}

func (c *Cloud) createPrimaryIP(r *request) (any, error) {
	var in struct {
		Name         string            `json:"name"`
		Type         string            `json:"type"`
		Location     string            `json:"location"`
		Datacenter   string            `json:"datacenter"`
		AutoDelete   bool              `json:"auto_delete"`
		AssigneeID   *int64            `json:"assignee_id"`
		AssigneeType string            `json:"assignee_type"`
		Labels       map[string]string `json:"labels"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Type != "ipv4" && in.Type != "ipv6" {
		return nil, invalid(field("type", "%q: expected ipv4 or ipv6", in.Type))
	}
	if in.AssigneeID != nil && *in.AssigneeID != 0 {
		return nil, invalid(field("assignee_id", "the lab assigns primary IPs when a server is created"))
	}
	if err := checkLabels(in.Labels); err != nil {
		return nil, err
	}
	if in.Location == "" {
		in.Location = "fsn1"
	}
	if _, ok := placeOf(in.Location); !ok {
		return nil, invalid(field("location", "location %q not found", in.Location))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.primaryNamed(in.Name) != nil {
		return nil, notUnique("primary IP", in.Name)
	}
	ip, err := c.state.newPrimaryIP(in.Type, in.Location)
	if err != nil {
		return nil, err
	}
	ip.Name, ip.AutoDelete, ip.Labels = in.Name, in.AutoDelete, orEmpty(in.Labels)
	c.save()
	return created(map[string]any{"primary_ip": ip.wire()})
}

func (st *state) primaryNamed(name string) *primaryIP {
	for _, ip := range st.PrimaryIPs {
		if ip.Name == name {
			return ip
		}
	}
	return nil
}

func (c *Cloud) getPrimaryIP(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ip := c.state.PrimaryIPs[r.id()]
	if ip == nil {
		return nil, notFound("primary_ip", r.id())
	}
	return map[string]any{"primary_ip": ip.wire()}, nil
}

func (c *Cloud) updatePrimaryIP(r *request) (any, error) {
	var in struct {
		update
		AutoDelete *bool `json:"auto_delete"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ip := c.state.PrimaryIPs[r.id()]
	if ip == nil {
		return nil, notFound("primary_ip", r.id())
	}
	taken := func(n string) bool { o := c.state.primaryNamed(n); return o != nil && o != ip }
	if err := in.apply("primary IP", &ip.Name, &ip.Labels, taken); err != nil {
		return nil, err
	}
	if in.AutoDelete != nil {
		ip.AutoDelete = *in.AutoDelete
	}
	c.save()
	return map[string]any{"primary_ip": ip.wire()}, nil
}

func (c *Cloud) deletePrimaryIP(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ip := c.state.PrimaryIPs[r.id()]
	switch {
	case ip == nil:
		return nil, notFound("primary_ip", r.id())
	case ip.Assignee != 0:
		return nil, fail(http.StatusUnprocessableEntity, "must_be_unassigned", "primary IP is assigned to a server")
	}
	delete(c.state.PrimaryIPs, ip.ID)
	c.save()
	return nil, nil
}

func (c *Cloud) primaryIPReverse(r *request) (any, error) {
	var in reverse
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ip := c.state.PrimaryIPs[r.id()]
	switch {
	case ip == nil:
		return nil, notFound("primary_ip", r.id())
	case !ip.holds(in.IP):
		return nil, invalid(field("ip", "%q is not in this primary IP", in.IP))
	}
	ip.setPtr(in)
	a := c.begin("change_dns_ptr", "", nil, r.fault, resource{ip.ID, "primary_ip"})
	c.save()
	return created(map[string]any{"action": c.wireAction(a)})
}
