// Package drivers fits each provider's driver to what provision/lifecycle asks of a provider. It translates values and
// adds nothing.
package drivers

import (
	"context"

	"popfleet/provision/hetznercloud"
	"popfleet/provision/lifecycle"
)

// HetznerCloud is a Hetzner Cloud project as a node's life needs it.
type HetznerCloud struct{ Driver *hetznercloud.Driver }

var _ lifecycle.Provider = HetznerCloud{}

// Servers finds the fleet's servers by the node in their labels.
func (h HetznerCloud) Servers(ctx context.Context, fleet string) (map[string]lifecycle.Server, error) {
	list, err := h.Driver.Servers(aloud(ctx), fleet)
	if err != nil {
		return nil, err
	}
	out := map[string]lifecycle.Server{}
	for _, s := range list {
		if node := s.Labels[hetznercloud.LabelNode]; node != "" && settled(s.Status) {
			out[node] = server(s)
		}
	}
	return out, nil
}

// settled: a server on its way in or out is described again when its turn comes.
func settled(status string) bool { return status == "running" || status == "off" }

// Describe finds one node's server.
func (h HetznerCloud) Describe(ctx context.Context, fleet, node string) (lifecycle.Server, bool, error) {
	s, found, err := h.Driver.Describe(aloud(ctx), fleet, node)
	return server(s), found, err
}

// EnterRescue starts the rescue system; Hetzner Cloud publishes no host keys for it.
func (h HetznerCloud) EnterRescue(ctx context.Context, id, sshPublicKey, keyName string) ([]string, error) {
	r, err := h.Driver.EnterRescue(aloud(ctx), id, sshPublicKey, keyName)
	return r.HostKeys, err
}

// BootDisk starts the disk.
func (h HetznerCloud) BootDisk(ctx context.Context, id string) error {
	return h.Driver.BootDisk(aloud(ctx), id)
}

// Reset cuts the power and starts again.
func (h HetznerCloud) Reset(ctx context.Context, id string) error {
	return h.Driver.Reset(aloud(ctx), id)
}

func server(s hetznercloud.Server) lifecycle.Server {
	return lifecycle.Server{ID: s.ID, Addr4: s.Addr4, Addr6: s.Addr6, Off: s.Status == "off", RescueEnabled: s.RescueEnabled}
}

func aloud(ctx context.Context) context.Context {
	return hetznercloud.WithWaiting(ctx, lifecycle.Waiting(ctx))
}
