package reach

import (
	"net/netip"

	"popfleet/lab/hcloud"
)

// Servers finds the machines of a cloud by their addresses.
func Servers(c *hcloud.Cloud) Find {
	return func(a netip.Addr) (Dialer, []string, bool) {
		i, ok := c.ByAddress(a)
		if !ok || i.Machine == nil {
			return nil, nil, false
		}
		return i.Machine, i.Names(), true
	}
}
