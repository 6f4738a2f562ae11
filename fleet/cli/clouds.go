package cli

import (
	"context"
	"fmt"
	"net/netip"

	"popfleet/provision/hetznercloud"
	"popfleet/provision/lifecycle"
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

func (c *clouds) provider(name string) (lifecycle.Provider, error) {
	if name != "hetznercloud" {
		return nil, fmt.Errorf("no driver for provider %q", name)
	}
	return hetznerProvider{c.hetzner}, nil
}

// hetznerProvider shows the driver as lifecycle wants it.
type hetznerProvider struct{ driver *hetznercloud.Driver }

func (p hetznerProvider) Servers(ctx context.Context, fleet string) (map[string]lifecycle.Server, error) {
	list, err := p.driver.Servers(waiting(ctx), fleet)
	if err != nil {
		return nil, err
	}
	servers := map[string]lifecycle.Server{}
	for _, s := range list {
		servers[s.Labels[hetznercloud.LabelNode]] = toServer(s)
	}
	return servers, nil
}

func (p hetznerProvider) Describe(ctx context.Context, fleet, node string) (lifecycle.Server, bool, error) {
	s, ok, err := p.driver.Describe(waiting(ctx), fleet, node)
	return toServer(s), ok, err
}

func (p hetznerProvider) EnterRescue(ctx context.Context, id, sshPublicKey, keyName string) ([]string, error) {
	r, err := p.driver.EnterRescue(waiting(ctx), id, sshPublicKey, keyName)
	return r.HostKeys, err
}

func (p hetznerProvider) BootDisk(ctx context.Context, id string) error {
	return p.driver.BootDisk(waiting(ctx), id)
}

func (p hetznerProvider) Reset(ctx context.Context, id string) error {
	return p.driver.Reset(waiting(ctx), id)
}

// waiting lets what the driver waits for be heard where lifecycle listens.
func waiting(ctx context.Context) context.Context {
	return hetznercloud.WithWaiting(ctx, lifecycle.Waiting(ctx))
}

func toServer(s hetznercloud.Server) lifecycle.Server {
	return lifecycle.Server{ID: s.ID, Addr4: s.Addr4, Addr6: s.Addr6, Off: s.Status == "off", RescueEnabled: s.RescueEnabled}
}

// addresses of all servers the provider has for this fleet, by node, IPv4 first.
func (s *session) addresses(ctx context.Context) (map[string][]netip.Addr, error) {
	p, err := s.clouds.provider("hetznercloud")
	if err != nil {
		return nil, err
	}
	servers, err := p.Servers(ctx, s.fleet.Name)
	if err != nil {
		return nil, err
	}
	all := map[string][]netip.Addr{}
	for node, server := range servers {
		if a := usable(server.Addr4, server.Addr6); len(a) > 0 {
			all[node] = a
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

func (s *session) wantedObjects() (stack.Wanted, error) {
	key, err := s.vault.FleetKey()
	if err != nil {
		return stack.Wanted{}, err
	}
	return stack.Want(*s.fleet, key.Public)
}
