package playbooks

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"popfleet/inventory"
	"popfleet/playbooks/spec"
)

// Compile renders the playbooks for one node. The result passes [spec.Node.Validate], and the same input gives the same
// bytes. What is wrong with a playbook is an [*inventory.ErrInvalid] with every place.
func Compile(in Input) (spec.Node, error) {
	n, err := compile(in)
	if err != nil {
		return spec.Node{}, fmt.Errorf("compile node %s: %w", in.Node, err)
	}
	return *n, nil
}

func compile(in Input) (*spec.Node, error) {
	if in.Fleet == nil || in.Release == nil || in.Secrets == nil {
		return nil, errors.New("fleet, release and secrets are needed")
	}
	set := in.Playbooks
	if set == nil {
		var err error
		if set, err = Builtin(); err != nil {
			return nil, err
		}
	}
	vars, err := newVars(in)
	if err != nil {
		return nil, err
	}
	if vars.PeerUnlock, err = peerUnlock(in.Secrets, vars); err != nil {
		return nil, fmt.Errorf("shares for other nodes: %w", err)
	}
	c := &compiler{in: in, node: &spec.Node{Version: 1, Name: in.Node, Release: in.Release}}
	if c.render, err = newRenderer(set.templates, vars); err != nil {
		return nil, err
	}
	for _, p := range c.active(set) {
		c.playbook(p)
	}
	if len(c.problems) > 0 {
		return nil, &inventory.ErrInvalid{Problems: c.problems}
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.node, c.node.Validate()
}

// compiler gathers the parts of one node, and all that is wrong on the way.
type compiler struct {
	in       Input
	render   *renderer
	node     *spec.Node
	ca       []byte
	problems []inventory.Problem
	err      error // of the secrets: the first one, since the rest would be the same
}

// active leaves out what `when` excludes and lets the templates see which services and ports there are.
func (c *compiler) active(set *Set) []*Playbook {
	var out []*Playbook
	for _, p := range set.playbooks {
		applies, err := c.render.truth(p.When, true)
		if err != nil {
			c.bad(p, "when", err)
		}
		if applies {
			out = append(out, p)
		}
	}
	v := &c.render.vars
	for _, p := range out {
		if p.Service != nil {
			v.Services = append(v.Services, p.Service.Name)
		}
		for _, o := range p.Ports {
			v.Ports = append(v.Ports, OpenPort{o.Port, o.Proto, o.From, p.Name})
		}
	}
	return out
}

func (c *compiler) bad(p *Playbook, field string, err error) {
	c.problems = append(c.problems, p.problem(field, err.Error(), ""))
}

func (c *compiler) text(p *Playbook, field, body string) string {
	s, err := c.render.text(body)
	if err != nil {
		c.bad(p, field, err)
	}
	return s
}

func (c *compiler) playbook(p *Playbook) {
	n := c.node
	for _, name := range p.Packages {
		if !slices.Contains(n.Packages, name) {
			n.Packages = append(n.Packages, name)
		}
	}
	for _, g := range p.Groups {
		c.group(g)
	}
	for _, u := range p.Users {
		n.Users = append(n.Users, spec.User{Name: u.Name, Group: u.Group, Groups: u.Groups, Home: u.Home})
	}
	if p.Service != nil {
		c.service(p)
	}
	for i, d := range p.Dirs {
		c.dir(p, i, d)
	}
	for i, f := range p.Files {
		c.file(p, i, f)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Sysctl)) {
		n.Sysctl = append(n.Sysctl, spec.Sysctl{Key: key, Value: p.Sysctl[key]})
	}
	if p.Nftables != "" {
		c.nftables(p)
	}
	for i, u := range p.Units {
		c.unit(p, i, u)
	}
}

func (c *compiler) group(name string) {
	if !slices.ContainsFunc(c.node.Groups, func(g spec.Group) bool { return g.Name == name }) {
		c.node.Groups = append(c.node.Groups, spec.Group{Name: name})
	}
}

const fleetGroup = "fleet"

// service is what every service has (docs/protocols/node.md).
func (c *compiler) service(p *Playbook) {
	s, account := p.Service, "fleet-"+p.Service.Name
	c.group(fleetGroup)
	c.group(account)
	c.node.Users = append(c.node.Users, spec.User{Name: account, Group: account, Groups: []string{fleetGroup}, Home: "/var/lib/fleet/" + s.Name})
	if s.Check != "" {
		c.check(p, s)
	}
	if s.TLS != nil {
		c.tls(p, s)
	}
}

func (c *compiler) check(p *Playbook, s *Service) {
	d, err := time.ParseDuration(s.Check)
	if err != nil {
		c.bad(p, "service.check", err)
		return
	}
	seconds := int(math.Ceil(c.in.Pace.Of(d).Seconds()))
	c.node.Checks = append(c.node.Checks, spec.Check{Service: s.Name, Socket: "/run/fleet-" + s.Name + "/control.sock", TimeoutSec: seconds})
}

// tls puts the fleet authority's certificate, once, and the service's own pair on the node.
func (c *compiler) tls(p *Playbook, s *Service) {
	var names []string
	for i, name := range s.TLS.Names {
		field := fmt.Sprintf("service.tls.names[%d]", i)
		names = append(names, strings.Fields(c.text(p, field, name))...)
	}
	if c.ca == nil {
		ca, err := c.in.Secrets.CACertPEM()
		c.keep(err)
		c.ca = ca
		c.node.Files = append(c.node.Files, spec.File{Path: "/etc/fleet/tls/ca.crt", Mode: 0o644, Owner: "root", Group: "root", Content: ca})
	}
	cert, key, err := c.in.Secrets.Leaf(s.Name, c.in.Node, names)
	c.keep(err)
	// No restart for the leaf: every service of ours reads a renewed one by itself, and one renewal is due on all nodes at once.
	pem := func(ext string, content []byte, secret bool) {
		c.node.Files = append(c.node.Files, spec.File{Path: "/etc/fleet/tls/" + s.Name + ext, Mode: 0o640, Owner: "root",
			Group: "fleet-" + s.Name, Content: content, Secret: secret})
	}
	pem(".crt", cert, false)
	pem(".key", key, true)
	c.feedCA("fleet-" + s.Name + ".service")
}

// feedCA restarts the unit when the authority's certificate changes.
func (c *compiler) feedCA(unit string) {
	for i := range c.node.Files {
		if f := &c.node.Files[i]; f.Path == "/etc/fleet/tls/ca.crt" {
			f.Restart = append(f.Restart, unit)
		}
	}
}

func (c *compiler) keep(err error) {
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("certificate: %w", err)
	}
}

func (c *compiler) dir(p *Playbook, i int, d Dir) {
	m, err := mode(d.Mode, 0o755)
	if err != nil {
		c.bad(p, fmt.Sprintf("dirs[%d].mode", i), err)
	}
	c.node.Dirs = append(c.node.Dirs, spec.Dir{Path: d.Path, Mode: m, Owner: rootOr(d.Owner), Group: rootOr(d.Group)})
}

func rootOr(s string) string {
	if s == "" {
		return "root"
	}
	return s
}

func (c *compiler) file(p *Playbook, i int, f File) {
	field := fmt.Sprintf("files[%d]", i)
	m, err := mode(f.Mode, 0o644)
	if err != nil {
		c.bad(p, field+".mode", err)
	}
	secret, err := c.render.truth(f.Secret, false)
	if err != nil {
		c.bad(p, field+".secret", err)
	}
	content := []byte(c.text(p, field+".content", f.Content))
	if f.Format == "json" && len(c.problems) == 0 {
		if content, err = canonical(string(content)); err != nil {
			c.bad(p, field+".content", err)
		}
	}
	c.node.Files = append(c.node.Files, spec.File{Path: f.Path, Mode: m, Owner: rootOr(f.Owner), Group: rootOr(f.Group),
		Content: content, Secret: secret, Restart: f.Restart, Reload: f.Reload})
}

func (c *compiler) nftables(p *Playbook) {
	if c.node.Nftables != "" {
		c.bad(p, "nftables", errors.New("another playbook has the ruleset already; open a port with ports"))
		return
	}
	c.node.Nftables = c.text(p, "nftables", p.Nftables)
}

func (c *compiler) unit(p *Playbook, i int, u Unit) {
	field := fmt.Sprintf("units[%d]", i)
	out := spec.Unit{Name: u.Name, Content: c.text(p, field+".content", u.Content), Enabled: true, Running: true,
		Release: c.text(p, field+".release", u.Release)}
	if u.Enabled != nil {
		out.Enabled = *u.Enabled
	}
	if u.Running != nil {
		out.Running = *u.Running
	}
	if out.Release != "" && !c.in.Release.Has(out.Release) {
		c.problems = append(c.problems, p.problem(field+".release", "the release has no "+out.Release, "build it, or name another one"))
	}
	c.node.Units = append(c.node.Units, out)
}
