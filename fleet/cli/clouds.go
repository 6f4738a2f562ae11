package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/hetznerrobot"
	"popfleet/provision/ovh"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

// clouds are the providers that the fleet's nodes are rented from, each opened once.
type clouds struct {
	hetzner *hetznercloud.Driver // nil in a fleet without cloud servers
	byName  map[string]provider.Provider
	down    map[string]error // by name: why it can't be asked; the rest of the run leaves its nodes alone
	closers []func()
}

// openClouds opens every provider that a node of the fleet file is at, or a node that was taken out of it still is. The
// nodes of leaving are meant to be given up: they are on the servers they were installed on, whatever the file says now.
func (s *session) openClouds(ctx context.Context, leaving ...string) (*clouds, error) {
	c := &clouds{byName: map[string]provider.Provider{}, down: map[string]error{}}
	dedicated, err := s.dedicated(leaving)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(dedicated))
	for _, name := range names {
		err := s.openCloud(ctx, c, name, dedicated[name])
		if errors.As(err, new(*credentialsError)) {
			c.isDown(name, err)
			err = nil
		}
		if err != nil {
			c.close()
			return nil, err
		}
	}
	if len(c.byName) == 0 {
		return nil, c.whyDown(names)
	}
	return c, nil
}

// dedicated are the servers that nodes live on, by provider and node; a provider of cloud servers has none.
func (s *session) dedicated(leaving []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	add := func(at, node, server string) {
		if out[at] == nil {
			out[at] = map[string]string{}
		}
		if server != "" {
			out[at][node] = server
		}
	}
	for _, n := range s.fleet.Resolved() {
		if !slices.Contains(leaving, n.Name) {
			add(n.Machine.Provider, n.Name, n.Machine.Server)
		}
	}
	known, err := s.vault.Nodes()
	if err != nil {
		return nil, err
	}
	for _, node := range known {
		state, err := s.vault.NodeState(node)
		if err != nil {
			return nil, err
		}
		if _, wanted := s.fleet.Node(node); (!wanted || slices.Contains(leaving, node)) && state.ServerID != "" {
			m := inventory.Machine{Provider: state.Provider, Server: state.ServerID}
			if !m.Dedicated() {
				m.Provider, m.Server = inventory.ProviderHetznerCloud, ""
			}
			add(m.Provider, node, m.Server)
		}
	}
	return out, nil
}

func (s *session) openCloud(ctx context.Context, c *clouds, name string, servers map[string]string) error {
	secrets, err := s.app.credentials(ctx, s.fleet, name)
	if err != nil {
		return &credentialsError{err}
	}
	endpoint := s.app.endpoint(s.fleet, name)
	// OVH's driver measures the clocks itself, and its endpoint may be a name; Robot counts a question without a password
	// as a failed login, and blocks the address after three.
	if name == inventory.ProviderHetznerCloud {
		if err := checkClock(ctx, endpoint, accessOf(name)); err != nil {
			return err
		}
	}
	switch name {
	case inventory.ProviderHetznerRobot:
		key, err := s.vault.FleetKey()
		if err != nil {
			return err
		}
		d, err := hetznerrobot.New(hetznerrobot.Options{User: secrets[0], Password: secrets[1], Endpoint: endpoint,
			Servers: servers, Keys: []string{key.Public}, Pace: s.pace, Log: s.log})
		if err != nil {
			return err
		}
		c.byName[name], c.closers = d, append(c.closers, d.Close)
	case inventory.ProviderOVH:
		d, err := ovh.New(ovh.Options{ApplicationKey: secrets[0], ApplicationSecret: secrets[1], ConsumerKey: secrets[2],
			Endpoint: endpoint, Servers: servers, Pace: s.pace, Log: s.log})
		if err != nil {
			return err
		}
		c.byName[name], c.closers = d, append(c.closers, d.Close)
	default:
		d, err := hetznercloud.New(hetznercloud.Options{Token: secrets[0], Endpoint: endpoint, Pace: s.pace, Log: s.log})
		if err != nil {
			return err
		}
		c.hetzner, c.byName[name], c.closers = d, d.Machines(), append(c.closers, d.Close)
	}
	return nil
}

func (c *clouds) close() {
	for _, f := range c.closers {
		f()
	}
}

func (c *clouds) provider(name string) (provider.Provider, error) {
	if err := c.down[name]; err != nil {
		return nil, err
	}
	if p := c.byName[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no driver for provider %q", name)
}

// credentialsError: what a provider's API asks for is not to be had.
type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }

// dedicated are the providers whose servers are taken over.
func (c *clouds) dedicated() map[string]provider.Provider {
	out := maps.Clone(c.byName)
	delete(out, inventory.ProviderHetznerCloud)
	return out
}

// stackOptions opens the fleet's Pulumi stack.
func (s *session) stackOptions() (stack.Options, error) {
	passphrase, err := s.vault.Passphrase("stack")
	if err != nil {
		return stack.Options{}, err
	}
	return stack.Options{Dir: s.app.path(".fleet", "stack"), Fleet: s.fleet.Name, Passphrase: passphrase,
		Driver: s.clouds.hetzner, Dedicated: s.clouds.dedicated(), Unreachable: s.clouds.down, Log: s.log}, nil
}

func (s *session) wantedObjects(scope inventory.Fleet) (stack.Wanted, error) {
	key, err := s.vault.FleetKey()
	if err != nil {
		return stack.Wanted{}, err
	}
	return stack.Want(scope, key.Public)
}

// scope is the fleet as far as this run goes: the PoPs and nodes that were named, all when none was, and whatever has a
// server already or may have one, because what is left out of the provider's objects would be taken down.
func scope(f inventory.Fleet, named []string, exists func(node string) bool) inventory.Fleet {
	if len(named) == 0 {
		return f
	}
	all := f.PoPs
	f.PoPs = nil
	for _, pop := range all {
		var kept []inventory.Node
		for _, n := range pop.Nodes {
			if slices.Contains(named, pop.Name) || slices.Contains(named, n.Name) || exists(n.Name) {
				kept = append(kept, n)
			}
		}
		if pop.Nodes = kept; len(kept) > 0 {
			f.PoPs = append(f.PoPs, pop)
		}
	}
	return f
}

// checkProject refuses a token that sees none of the servers this fleet is known to have: it is most likely another
// project's, and the fleet would be rented anew beside the one that runs.
func (s *session) checkProject(exists map[string][]netip.Addr) error {
	if s.clouds.down[inventory.ProviderHetznerCloud] != nil {
		return nil // nobody knows what it would see, and nothing is rented
	}
	var known []string
	for _, n := range s.fleet.Resolved() {
		if n.Machine.Dedicated() {
			continue // named one by one, in whichever account they are
		}
		if len(exists[n.Name]) > 0 {
			return nil
		}
		state, err := s.vault.NodeState(n.Name)
		if err != nil {
			return err
		}
		if state.ServerID != "" {
			known = append(known, n.Name+" (server "+state.ServerID+")")
		}
	}
	if len(known) == 0 {
		return nil
	}
	return fmt.Errorf("the API token sees no server of this fleet, though %s existed\n  hint: is it a token of another project? if the servers are gone for good, `%s` forgets them first",
		strings.Join(known, ", "), s.app.again("down", s.fleet.Name))
}
