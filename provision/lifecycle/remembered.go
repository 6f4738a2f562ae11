package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"popfleet/provision/provider"
)

// Remembered stands in for a provider where there is no API token, as on a controller: it knows the servers that were
// written down when they were installed, and has no power over them.
type Remembered struct {
	Memory Memory
	Nodes  []string
}

var errNoPower = errors.New("this process has no access to the provider's API")

// Servers lists the nodes that were installed.
func (r Remembered) Servers(ctx context.Context, fleet string) (map[string]provider.Server, error) {
	out := map[string]provider.Server{}
	for _, n := range r.Nodes {
		s, found, err := r.Describe(ctx, fleet, n)
		if err != nil {
			return nil, err
		}
		if found {
			out[n] = s
		}
	}
	return out, nil
}

// Describe gives the server as it was when its node was installed.
func (r Remembered) Describe(_ context.Context, _, node string) (provider.Server, bool, error) {
	state, err := r.Memory.NodeState(node)
	if err != nil || state.ServerID == "" || len(state.Addresses) == 0 {
		return provider.Server{}, false, err
	}
	addr, err := netip.ParseAddr(state.Addresses[0])
	if err != nil {
		return provider.Server{}, false, fmt.Errorf("address of %s: %w", node, err)
	}
	s := provider.Server{ID: state.ServerID}
	if addr.Is4() {
		s.Addr4 = addr
	} else {
		s.Addr6 = addr
	}
	return s, true, nil
}

// Ensure is refused.
func (Remembered) Ensure(context.Context, provider.Wanted) (provider.Server, error) {
	return provider.Server{}, errNoPower
}

// EnterRescue is refused.
func (Remembered) EnterRescue(context.Context, string, provider.Restart) (provider.Rescue, error) {
	return provider.Rescue{}, errNoPower
}

// BootDisk is refused.
func (Remembered) BootDisk(context.Context, string, provider.Restart) error { return errNoPower }

// Reset is refused.
func (Remembered) Reset(context.Context, string, provider.Restart) error { return errNoPower }

// SetReverse is refused.
func (Remembered) SetReverse(context.Context, string, netip.Addr, string) error { return errNoPower }

// Reverse is not known.
func (Remembered) Reverse(context.Context, string, netip.Addr) (string, error) { return "", errNoPower }

// Activity is not known.
func (Remembered) Activity(context.Context, string, time.Time) ([]provider.Activity, error) {
	return nil, errNoPower
}

// Release is refused.
func (Remembered) Release(context.Context, string) ([]string, error) { return nil, errNoPower }
