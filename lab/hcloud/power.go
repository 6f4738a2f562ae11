package hcloud

import (
	"crypto/rand"
	"encoding/json"
	"net/netip"
)

// power begins an action on a free server and sets the status that shows while it runs ("" leaves it).
func (c *Cloud) power(r *request, command, status string) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.free(r.id())
	if err != nil {
		return nil, err
	}
	if status != "" {
		s.Status = status
	}
	a := c.begin(command, "", nil, r.fault, serverRes(s.ID))
	c.save()
	return created(map[string]any{"action": c.wireAction(a)})
}

func (c *Cloud) powerOn(r *request) (any, error)  { return c.power(r, "start_server", "starting") }
func (c *Cloud) powerOff(r *request) (any, error) { return c.power(r, "stop_server", "stopping") }
func (c *Cloud) reset(r *request) (any, error)    { return c.power(r, "reset_server", "") }

// shutdown and reboot press the ACPI button: the action succeeds at once, the guest may ignore it.
func (c *Cloud) shutdown(r *request) (any, error) { return c.power(r, "shutdown_server", "") }
func (c *Cloud) reboot(r *request) (any, error)   { return c.power(r, "reboot_server", "") }

func (c *Cloud) enableRescue(r *request) (any, error) {
	var in struct {
		Type    string  `json:"type"`
		SSHKeys []int64 `json:"ssh_keys"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Type != "" && in.Type != "linux64" {
		return nil, invalid(field("type", "%q: expected linux64", in.Type))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.free(r.id())
	if err != nil {
		return nil, err
	}
	on := rescue{Keys: []string{}, Password: rand.Text()}
	for _, id := range in.SSHKeys {
		key := c.state.SSHKeys[id]
		if key == nil {
			return nil, invalid(field("ssh_keys", "SSH key with ID '%d' not found", id))
		}
		on.Keys = append(on.Keys, key.PublicKey)
	}
	argument, err := json.Marshal(on)
	if err != nil {
		return nil, err
	}
	a := c.begin("enable_rescue", string(argument), nil, r.fault, serverRes(s.ID))
	c.save()
	return created(map[string]any{"action": c.wireAction(a), "root_password": on.Password})
}

func (c *Cloud) disableRescue(r *request) (any, error) { return c.power(r, "disable_rescue", "") }

func (c *Cloud) protectServer(r *request) (any, error) {
	var in struct {
		Delete  *bool `json:"delete"`
		Rebuild *bool `json:"rebuild"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Delete == nil || in.Rebuild == nil || *in.Delete != *in.Rebuild {
		return nil, invalid(field("delete", "delete and rebuild must be given and be equal"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.free(r.id())
	if err != nil {
		return nil, err
	}
	s.Protect = *in.Delete
	a := c.begin("change_protection", "", nil, r.fault, serverRes(s.ID))
	c.save()
	return created(map[string]any{"action": c.wireAction(a)})
}

type reverse struct {
	IP     string  `json:"ip"`
	DNSPtr *string `json:"dns_ptr"`
}

func (c *Cloud) serverReverse(r *request) (any, error) {
	var in reverse
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state.Servers[r.id()]
	if s == nil {
		return nil, notFound("server", r.id())
	}
	for _, id := range []int64{s.IPv4, s.IPv6} {
		if ip := c.state.PrimaryIPs[id]; ip != nil && ip.holds(in.IP) {
			ip.setPtr(in)
			a := c.begin("change_dns_ptr", "", nil, r.fault, serverRes(s.ID))
			c.save()
			return created(map[string]any{"action": c.wireAction(a)})
		}
	}
	return nil, invalid(field("ip", "%q is not an address of this server", in.IP))
}

func (c *Cloud) attachNetwork(r *request) (any, error) {
	var in struct {
		Network  int64    `json:"network"`
		IP       string   `json:"ip"`
		IPRange  string   `json:"ip_range"`
		AliasIPs []string `json:"alias_ips"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	var wish netip.Addr
	if in.IP != "" {
		a, err := netip.ParseAddr(in.IP)
		if err != nil {
			return nil, invalid(field("ip", "%v", err))
		}
		wish = a
	}
	return c.netAction(r, "attach_to_network", in.Network, func(s *server) error { return c.state.join(s, in.Network, wish) })
}

func (c *Cloud) detachNetwork(r *request) (any, error) {
	var in struct {
		Network int64 `json:"network"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	return c.netAction(r, "detach_from_network", in.Network, func(s *server) error { return c.state.leave(s, in.Network) })
}

func (c *Cloud) netAction(r *request, command string, net int64, do func(*server) error) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.free(r.id())
	if err != nil {
		return nil, err
	}
	if err := do(s); err != nil {
		return nil, err
	}
	a := c.begin(command, "", nil, r.fault, serverRes(s.ID), resource{net, "network"})
	c.save()
	return created(map[string]any{"action": c.wireAction(a)})
}
