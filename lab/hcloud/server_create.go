package hcloud

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"popfleet/lab/faults"
)

// name is an id or a name: the API takes both in some places, as a number or a string.
type name string

func (n *name) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err == nil {
		*n = name(s)
		return nil
	}
	var i int64
	if err := json.Unmarshal(b, &i); err != nil {
		return fmt.Errorf("%s: expected an id or a name", b)
	}
	*n = name(strconv.FormatInt(i, 10))
	return nil
}

type createServer struct {
	Name       string             `json:"name"`
	ServerType name               `json:"server_type"`
	Image      name               `json:"image"`
	Location   string             `json:"location"`
	Datacenter string             `json:"datacenter"`
	SSHKeys    []name             `json:"ssh_keys"`
	UserData   string             `json:"user_data"`
	Start      *bool              `json:"start_after_create"`
	Labels     map[string]string  `json:"labels"`
	Automount  *bool              `json:"automount"`
	Volumes    []int64            `json:"volumes"`
	Networks   []int64            `json:"networks"`
	Firewalls  []createServerWall `json:"firewalls"`
	Group      int64              `json:"placement_group"`
	PublicNet  *createServerNet   `json:"public_net"`
}

type createServerWall struct {
	Firewall int64 `json:"firewall"`
}

type createServerNet struct {
	EnableIPv4 *bool  `json:"enable_ipv4"`
	EnableIPv6 *bool  `json:"enable_ipv6"`
	IPv4       *int64 `json:"ipv4"`
	IPv6       *int64 `json:"ipv6"`
}

var hostname = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*$`)

func (c *Cloud) createServer(r *request) (any, error) {
	var in createServer
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.newServer(in)
	if err != nil {
		return nil, err
	}
	if err := c.wire(s, in, r.fault); err != nil {
		return nil, err
	}
	c.state.Servers[s.ID] = s
	a := c.begin("create_server", "", nil, r.fault, serverRes(s.ID))
	next := []wireAction{}
	if s.StartAfter {
		next = append(next, c.wireAction(c.begin("start_server", "", a, nil, serverRes(s.ID))))
	}
	for _, id := range s.Firewalls {
		next = append(next, c.wireAction(c.begin("apply_firewall", "", a, nil, serverRes(s.ID), resource{id, "firewall"})))
	}
	c.save()
	var password *string
	if len(in.SSHKeys) == 0 {
		password = ptr(rand.Text())
	}
	return created(map[string]any{"server": c.wireServer(s), "action": c.wireAction(a), "next_actions": next, "root_password": password})
}

// newServer checks what the request says by itself; c.mu is held.
func (c *Cloud) newServer(in createServer) (*server, error) {
	var bad []fieldError
	if !hostname.MatchString(in.Name) {
		bad = append(bad, field("name", "%q is not a hostname as per RFC 1123", in.Name))
	}
	t, ok := serverType(string(in.ServerType))
	if !ok {
		bad = append(bad, field("server_type", "server type %q not found", in.ServerType))
	}
	if _, ok := imageOf(string(in.Image)); !ok {
		bad = append(bad, field("image", "image %q not found", in.Image))
	}
	if in.Location == "" {
		in.Location = "fsn1"
	}
	p, ok := placeOf(in.Location)
	if !ok {
		bad = append(bad, field("location", "location %q not found", in.Location))
	}
	if in.Datacenter != "" {
		bad = append(bad, field("datacenter", "datacenter was removed, use location"))
	}
	if len(in.Volumes) > 0 {
		bad = append(bad, field("volumes", "the lab has no volumes"))
	}
	if len(bad) > 0 {
		return nil, invalid(bad...)
	}
	if err := checkLabels(in.Labels); err != nil {
		return nil, err
	}
	for _, o := range c.state.Servers {
		if o.Name == in.Name {
			return nil, notUnique("server", in.Name)
		}
	}
	img, _ := imageOf(string(in.Image))
	id := c.state.nextID()
	return &server{
		ID: id, Name: in.Name, Status: "initializing", Created: time.Now().UTC(), Type: t.Name, Image: img.Name,
		Location: p.Name, Labels: orEmpty(in.Labels), UserData: in.UserData, StartAfter: in.Start == nil || *in.Start,
		MAC: fmt.Sprintf("96:00:00:%02x:%02x:%02x", byte(id>>16), byte(id>>8), byte(id)),
	}, nil
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// wire connects a new server with what it names; c.mu is held. Nothing is written before all names are known to exist.
func (c *Cloud) wire(s *server, in createServer, fault *faults.Fault) error {
	for _, k := range in.SSHKeys {
		key := c.state.findKey(string(k))
		if key == nil {
			return invalid(field("ssh_keys", "SSH key %q not found", k))
		}
		s.SSHKeys = append(s.SSHKeys, key.PublicKey)
	}
	for _, w := range in.Firewalls {
		if c.state.Firewalls[w.Firewall] == nil {
			return invalid(field("firewalls", "firewall %d not found", w.Firewall))
		}
		s.Firewalls = append(s.Firewalls, w.Firewall)
	}
	if in.Group != 0 {
		if err := c.state.roomInGroup(in.Group); err != nil {
			return err
		}
		s.Group = in.Group
	}
	for _, id := range in.Networks {
		if c.state.Networks[id] == nil {
			return invalid(field("networks", "network %d not found", id))
		}
	}
	for _, id := range in.Networks {
		if err := c.state.join(s, id, netip.Addr{}); err != nil {
			return err
		}
	}
	noV4 := fault != nil && fault.Kind == faults.NoIPv4
	return c.publicNet(s, in.PublicNet, noV4)
}

func (c *Cloud) publicNet(s *server, in *createServerNet, noV4 bool) error {
	if in == nil {
		in = &createServerNet{}
	}
	on := func(b *bool) bool { return b == nil || *b }
	if on(in.EnableIPv4) && !noV4 {
		ip, err := c.primaryFor(s, "ipv4", in.IPv4)
		if err != nil {
			return err
		}
		s.IPv4 = ip.ID
	}
	if on(in.EnableIPv6) {
		ip, err := c.primaryFor(s, "ipv6", in.IPv6)
		if err != nil {
			return err
		}
		s.IPv6 = ip.ID
	}
	return nil
}

// primaryFor takes the primary IP that was asked for, or makes one that goes with the server.
func (c *Cloud) primaryFor(s *server, kind string, id *int64) (*primaryIP, error) {
	if id == nil || *id == 0 {
		ip, err := c.state.newPrimaryIP(kind, s.Location)
		if err != nil {
			return nil, err
		}
		ip.Assignee, ip.AutoDelete = s.ID, true
		return ip, nil
	}
	ip := c.state.PrimaryIPs[*id]
	switch {
	case ip == nil || ip.Type != kind:
		return nil, invalid(field("public_net", "primary IP %d (%s) not found", *id, kind))
	case ip.Assignee != 0:
		return nil, fail(http.StatusConflict, "primary_ip_assigned", "primary IP %d is already assigned", *id)
	}
	ip.Assignee = s.ID
	return ip, nil
}
