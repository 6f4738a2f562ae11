package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Remembered stands in for a provider where there is no API token, as on a controller: it knows the servers that were
// written down when they were installed, and has no power over them.
type Remembered struct {
	Memory Memory
	Nodes  []string
}

var errNoPower = errors.New("this process has no access to the provider's API")

// Servers lists the nodes that were installed.
func (r Remembered) Servers(ctx context.Context, fleet string) (map[string]Server, error) {
	out := map[string]Server{}
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
func (r Remembered) Describe(_ context.Context, _, node string) (Server, bool, error) {
	state, err := r.Memory.NodeState(node)
	if err != nil || state.ServerID == "" || len(state.Addresses) == 0 {
		return Server{}, false, err
	}
	addr, err := netip.ParseAddr(state.Addresses[0])
	if err != nil {
		return Server{}, false, fmt.Errorf("address of %s: %w", node, err)
	}
	s := Server{ID: state.ServerID}
	if addr.Is4() {
		s.Addr4 = addr
	} else {
		s.Addr6 = addr
	}
	return s, true, nil
}

// EnterRescue is refused.
func (Remembered) EnterRescue(context.Context, string, string, string) ([]string, error) {
	return nil, errNoPower
}

// BootDisk is refused.
func (Remembered) BootDisk(context.Context, string) error { return errNoPower }

// Reset is refused.
func (Remembered) Reset(context.Context, string) error { return errNoPower }
