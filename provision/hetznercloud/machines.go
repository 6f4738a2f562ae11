package hetznercloud

import (
	"context"
	"net/netip"
	"time"

	"popfleet/provision/provider"
)

// Machines is the driver as a node's life sees it; the objects around servers are provision/stack's.
func (d *Driver) Machines() provider.Provider { return machines{d} }

type machines struct{ d *Driver }

// Servers finds the fleet's servers by the node in their labels. One on its way in or out is described again when its
// turn comes.
func (m machines) Servers(ctx context.Context, fleet string) (map[string]provider.Server, error) {
	list, err := m.d.Servers(ctx, fleet)
	if err != nil {
		return nil, err
	}
	out := map[string]provider.Server{}
	for _, s := range list {
		if node := s.Labels[LabelNode]; node != "" && (s.Status == "running" || s.Status == "off") {
			out[node] = s.asMachine()
		}
	}
	return out, nil
}

func (m machines) Describe(ctx context.Context, fleet, node string) (provider.Server, bool, error) {
	s, found, err := m.d.Describe(ctx, fleet, node)
	return s.asMachine(), found, err
}

// Ensure rents a server by itself; a fleet's own are created by provision/stack, with the objects around them.
func (m machines) Ensure(ctx context.Context, w provider.Wanted) (provider.Server, error) {
	spec := ServerSpec{Name: w.Fleet + "-" + w.Node, Image: w.Image, Labels: Labels(w.Fleet, w.Node, "server."+w.Node)}
	for i, p := range w.Places {
		if i == 0 {
			spec.ServerType, spec.Location = p.Type, p.Location
			continue
		}
		spec.Elsewhere = append(spec.Elsewhere, p)
	}
	s, err := m.d.EnsureServer(ctx, spec)
	return s.asMachine(), err
}

// EnterRescue starts the rescue system. Hetzner Cloud publishes no host keys for it, and user data is not read by it, so
// none can be planted either (docs/decisions/001).
func (m machines) EnterRescue(ctx context.Context, id string, r provider.Restart) (provider.Rescue, error) {
	return provider.Rescue{Origin: provider.FirstUse}, m.d.EnterRescue(ctx, id, r.Key.Public, r.Key.Name)
}

// BootDisk ignores how gently it is asked: a virtual machine's reset button always works.
func (m machines) BootDisk(ctx context.Context, id string, _ provider.Restart) error {
	return m.d.BootDisk(ctx, id)
}

func (m machines) Reset(ctx context.Context, id string, _ provider.Restart) error {
	return m.d.Reset(ctx, id)
}

func (m machines) SetReverse(ctx context.Context, id string, addr netip.Addr, name string) error {
	return m.d.SetReverse(ctx, id, addr.String(), name)
}

func (m machines) Reverse(ctx context.Context, id string, addr netip.Addr) (string, error) {
	s, found, err := m.d.Server(ctx, id)
	switch {
	case err != nil || !found:
		return "", err
	case addr == s.Addr4:
		return s.Reverse4, nil
	case addr == s.Addr6:
		return s.Reverse6, nil
	}
	return "", &Error{Op: "read reverse dns of " + addr.String(), Kind: provider.ErrNotFound}
}

func (m machines) Activity(ctx context.Context, id string, since time.Time) ([]provider.Activity, error) {
	return m.d.Activity(ctx, id, since)
}

func (m machines) Release(ctx context.Context, id string) ([]string, error) {
	return nil, m.d.Delete(ctx, id)
}

func (s Server) asMachine() provider.Server {
	return provider.Server{ID: s.ID, Node: s.Labels[LabelNode], Name: s.Name, Type: s.ServerType, Location: s.Location,
		Addr4: s.Addr4, Addr6: s.Addr6, Off: s.Status == "off", RescueEnabled: s.RescueEnabled}
}
