package hcloud

import (
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// firewall is a rule set. The lab keeps the books of it and filters nothing: nodes have nftables of their own.
type firewall struct {
	ID        int64             `json:"id"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Rules     []rule            `json:"rules"`
	Selectors []string          `json:"selectors"`
	Created   time.Time         `json:"created"`
}

type rule struct {
	Description    *string  `json:"description"`
	Direction      string   `json:"direction"`
	SourceIPs      []string `json:"source_ips"`
	DestinationIPs []string `json:"destination_ips"`
	Protocol       string   `json:"protocol"`
	Port           *string  `json:"port"`
}

type wireFirewall struct {
	ID        int64             `json:"id"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Rules     []rule            `json:"rules"`
	AppliedTo []target          `json:"applied_to"`
	Created   time.Time         `json:"created"`
}

// target is what a firewall is applied to: a server, or those that a selector finds.
type target struct {
	Type      string          `json:"type"`
	Server    *targetServer   `json:"server,omitempty"`
	Selector  *targetSelector `json:"label_selector,omitempty"`
	Resources []target        `json:"applied_to_resources,omitempty"`
}

type targetServer struct {
	ID int64 `json:"id"`
}

type targetSelector struct {
	Selector string `json:"selector"`
}

func (c *Cloud) wireFirewall(f *firewall) wireFirewall {
	w := wireFirewall{f.ID, f.Name, f.Labels, append([]rule{}, f.Rules...), []target{}, f.Created}
	for _, s := range c.state.servers() {
		if slices.Contains(s.Firewalls, f.ID) {
			w.AppliedTo = append(w.AppliedTo, target{Type: "server", Server: &targetServer{s.ID}})
		}
	}
	for _, text := range f.Selectors {
		sel, err := parseSelector(text)
		if err != nil {
			continue // checked when it was taken
		}
		t := target{Type: "label_selector", Selector: &targetSelector{text}}
		for _, s := range c.state.servers() {
			if sel.matches(s.Labels) {
				t.Resources = append(t.Resources, target{Type: "server", Server: &targetServer{s.ID}})
			}
		}
		w.AppliedTo = append(w.AppliedTo, t)
	}
	return w
}

const maxRules = 50

var portRange = regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5})?$`)

func checkRules(rules []rule) error {
	if len(rules) > maxRules {
		return invalid(field("rules", "more than %d rules", maxRules))
	}
	for i := range rules {
		if err := rules[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *rule) check() error {
	r.SourceIPs, r.DestinationIPs = append([]string{}, r.SourceIPs...), append([]string{}, r.DestinationIPs...)
	needsPort := r.Protocol == "tcp" || r.Protocol == "udp"
	switch {
	case !slices.Contains([]string{"tcp", "udp", "icmp", "esp", "gre"}, r.Protocol):
		return invalid(field("rules", "protocol %q is not known", r.Protocol))
	case needsPort && (r.Port == nil || !portRange.MatchString(*r.Port) && *r.Port != "any"):
		return invalid(field("rules", "%s needs a port or a range", r.Protocol))
	case !needsPort && r.Port != nil:
		return invalid(field("rules", "%s takes no port", r.Protocol))
	case r.Direction == "in" && (len(r.SourceIPs) == 0 || len(r.DestinationIPs) > 0):
		return invalid(field("rules", "direction in needs source_ips and no destination_ips"))
	case r.Direction == "out" && (len(r.DestinationIPs) == 0 || len(r.SourceIPs) > 0):
		return invalid(field("rules", "direction out needs destination_ips and no source_ips"))
	case r.Direction != "in" && r.Direction != "out":
		return invalid(field("rules", "direction %q: expected in or out", r.Direction))
	}
	for _, ip := range append(slices.Clone(r.SourceIPs), r.DestinationIPs...) {
		if _, err := netip.ParsePrefix(ip); err != nil {
			return invalid(field("rules", "%q is not a network in CIDR notation", ip))
		}
	}
	return nil
}

func (c *Cloud) listFirewalls(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	labels := func(f *firewall) map[string]string { return f.Labels }
	return list(r, "firewalls", byID(c.state.Firewalls), labels, func(f *firewall) string { return f.Name }, c.wireFirewall)
}

func (c *Cloud) createFirewall(r *request) (any, error) {
	var in struct {
		Name    string            `json:"name"`
		Labels  map[string]string `json:"labels"`
		Rules   []rule            `json:"rules"`
		ApplyTo []target          `json:"apply_to"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Name == "" {
		return nil, invalid(field("name", "is missing"))
	}
	if err := checkLabels(in.Labels); err != nil {
		return nil, err
	}
	if err := checkRules(in.Rules); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.firewallNamed(in.Name) != nil {
		return nil, notUnique("firewall", in.Name)
	}
	if err := c.checkTargets(in.ApplyTo); err != nil {
		return nil, err
	}
	f := &firewall{ID: c.state.nextID(), Name: in.Name, Labels: orEmpty(in.Labels), Rules: in.Rules, Created: time.Now().UTC()}
	c.state.Firewalls[f.ID] = f
	acts := []wireAction{c.wireAction(c.begin("set_firewall_rules", "", nil, r.fault, resource{f.ID, "firewall"}))}
	acts = append(acts, c.applyTo(r, f, in.ApplyTo)...)
	c.save()
	return created(map[string]any{"firewall": c.wireFirewall(f), "actions": acts})
}

func (st *state) firewallNamed(name string) *firewall {
	for _, f := range st.Firewalls {
		if f.Name == name {
			return f
		}
	}
	return nil
}

func (c *Cloud) getFirewall(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Firewalls[r.id()]
	if f == nil {
		return nil, notFound("firewall", r.id())
	}
	return map[string]any{"firewall": c.wireFirewall(f)}, nil
}

func (c *Cloud) updateFirewall(r *request) (any, error) {
	var in update
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Firewalls[r.id()]
	if f == nil {
		return nil, notFound("firewall", r.id())
	}
	taken := func(n string) bool { o := c.state.firewallNamed(n); return o != nil && o != f }
	if err := in.apply("firewall", &f.Name, &f.Labels, taken); err != nil {
		return nil, err
	}
	c.save()
	return map[string]any{"firewall": c.wireFirewall(f)}, nil
}

func (c *Cloud) deleteFirewall(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Firewalls[r.id()]
	switch {
	case f == nil:
		return nil, notFound("firewall", r.id())
	case len(c.wireFirewall(f).AppliedTo) > 0:
		return nil, fail(http.StatusUnprocessableEntity, "resource_in_use", "firewall is still applied to a resource")
	}
	delete(c.state.Firewalls, f.ID)
	c.save()
	return nil, nil
}

func (c *Cloud) firewallActions(r *request) (any, error) {
	return c.actionsOf(r, resource{r.id(), "firewall"})
}

func (c *Cloud) setRules(r *request) (any, error) {
	var in struct {
		Rules []rule `json:"rules"`
	}
	return c.firewallAction(r, &in, func(f *firewall) ([]wireAction, error) {
		if err := checkRules(in.Rules); err != nil {
			return nil, err
		}
		f.Rules = in.Rules
		return []wireAction{c.wireAction(c.begin("set_firewall_rules", "", nil, r.fault, resource{f.ID, "firewall"}))}, nil
	})
}

func (c *Cloud) applyFirewall(r *request) (any, error) {
	var in struct {
		ApplyTo []target `json:"apply_to"`
	}
	return c.firewallAction(r, &in, func(f *firewall) ([]wireAction, error) {
		if err := c.checkTargets(in.ApplyTo); err != nil {
			return nil, err
		}
		return c.applyTo(r, f, in.ApplyTo), nil
	})
}

func (c *Cloud) removeFirewall(r *request) (any, error) {
	var in struct {
		RemoveFrom []target `json:"remove_from"`
	}
	return c.firewallAction(r, &in, func(f *firewall) ([]wireAction, error) {
		if err := c.checkTargets(in.RemoveFrom); err != nil {
			return nil, err
		}
		acts := []wireAction{}
		for _, t := range in.RemoveFrom {
			res := []resource{{f.ID, "firewall"}}
			if t.Server != nil {
				s := c.state.Servers[t.Server.ID]
				s.Firewalls = slices.DeleteFunc(s.Firewalls, func(id int64) bool { return id == f.ID })
				res = append(res, serverRes(s.ID))
			} else {
				f.Selectors = slices.DeleteFunc(f.Selectors, func(x string) bool { return x == t.Selector.Selector })
			}
			acts = append(acts, c.wireAction(c.begin("remove_firewall", "", nil, r.fault, res...)))
		}
		return acts, nil
	})
}

func (c *Cloud) firewallAction(r *request, in any, do func(*firewall) ([]wireAction, error)) (any, error) {
	if err := r.decode(in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Firewalls[r.id()]
	if f == nil {
		return nil, notFound("firewall", r.id())
	}
	acts, err := do(f)
	if err != nil {
		return nil, err
	}
	c.save()
	return created(map[string]any{"actions": acts})
}

func (c *Cloud) checkTargets(targets []target) error {
	for _, t := range targets {
		switch {
		case t.Type == "server" && t.Server != nil:
			if c.state.Servers[t.Server.ID] == nil {
				return fail(http.StatusNotFound, "firewall_resource_not_found", "server %d not found", t.Server.ID)
			}
		case t.Type == "label_selector" && t.Selector != nil:
			if _, err := parseSelector(t.Selector.Selector); err != nil {
				return invalid(field("label_selector", "%v", err))
			}
		default:
			return invalid(field("type", "%q: expected server or label_selector, with its object", t.Type))
		}
	}
	return nil
}

func (c *Cloud) applyTo(r *request, f *firewall, targets []target) []wireAction {
	acts := []wireAction{}
	for _, t := range targets {
		res := []resource{{f.ID, "firewall"}}
		if t.Server != nil {
			s := c.state.Servers[t.Server.ID]
			if !slices.Contains(s.Firewalls, f.ID) {
				s.Firewalls = append(s.Firewalls, f.ID)
			}
			res = append(res, serverRes(s.ID))
		} else if !slices.Contains(f.Selectors, t.Selector.Selector) {
			f.Selectors = append(f.Selectors, t.Selector.Selector)
		}
		acts = append(acts, c.wireAction(c.begin("apply_firewall", "", nil, r.fault, res...)))
	}
	return acts
}
