package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

// clouds are the providers that the fleet's nodes are rented from, each opened once.
type clouds struct {
	hetzner *hetznercloud.Driver
}

func (s *session) openClouds(ctx context.Context) (*clouds, error) {
	const name = "hetznercloud"
	token, err := s.app.token(ctx, s.fleet, name)
	if err != nil {
		return nil, err
	}
	endpoint := s.app.endpoint(s.fleet, name)
	if err := checkClock(ctx, endpoint); err != nil {
		return nil, err
	}
	driver, err := hetznercloud.New(hetznercloud.Options{Token: token, Endpoint: endpoint, Pace: s.pace, Log: s.log})
	if err != nil {
		return nil, err
	}
	return &clouds{hetzner: driver}, nil
}

func (c *clouds) close() { c.hetzner.Close() }

func (c *clouds) provider(name string) (provider.Provider, error) {
	if name != "hetznercloud" {
		return nil, fmt.Errorf("no driver for provider %q", name)
	}
	return c.hetzner.Machines(), nil
}

// addresses of all servers the provider has for this fleet, by node, IPv4 first.
func (s *session) addresses(ctx context.Context) (map[string][]netip.Addr, error) {
	servers, err := s.clouds.hetzner.Servers(ctx, s.fleet.Name)
	if err != nil {
		return nil, err
	}
	all := map[string][]netip.Addr{}
	for _, server := range servers {
		if a := usable(server.Addr4, server.Addr6); len(a) > 0 {
			all[server.Labels[hetznercloud.LabelNode]] = a
		}
	}
	return all, nil
}

func usable(candidates ...netip.Addr) (valid []netip.Addr) {
	for _, a := range candidates {
		if a.IsValid() {
			valid = append(valid, a)
		}
	}
	return valid
}

// stackOptions opens the fleet's Pulumi stack.
func (s *session) stackOptions() (stack.Options, error) {
	passphrase, err := s.vault.Passphrase("stack")
	if err != nil {
		return stack.Options{}, err
	}
	return stack.Options{Dir: s.app.path(".fleet", "stack"), Fleet: s.fleet.Name, Passphrase: passphrase,
		Driver: s.clouds.hetzner, Log: s.log}, nil
}

func (s *session) wantedObjects(scope inventory.Fleet) (stack.Wanted, error) {
	key, err := s.vault.FleetKey()
	if err != nil {
		return stack.Wanted{}, err
	}
	return stack.Want(scope, key.Public)
}

// scope is the fleet as far as this run goes: the PoPs and nodes that were named, all when none was, and whatever has a
// server already, because what is left out of the provider's objects would be taken down.
func scope(f inventory.Fleet, named []string, exists map[string][]netip.Addr) inventory.Fleet {
	if len(named) == 0 {
		return f
	}
	all := f.PoPs
	f.PoPs = nil
	for _, pop := range all {
		var kept []inventory.Node
		for _, n := range pop.Nodes {
			if slices.Contains(named, pop.Name) || slices.Contains(named, n.Name) || len(exists[n.Name]) > 0 {
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
	if len(exists) > 0 {
		return nil
	}
	var known []string
	for _, n := range s.fleet.Resolved() {
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
