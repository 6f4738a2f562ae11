package reach

import (
	"net/netip"

	"popfleet/lab/machine"
)

// Servers finds machines by their addresses among what the providers rent out. Each list is asked anew every time.
func Servers(lists ...func() []machine.Info) Find {
	return func(a netip.Addr) (Dialer, []string, bool) {
		for _, list := range lists {
			for _, i := range list() {
				if i.Machine != nil && i.Has(a) {
					return i.Machine, i.Names(), true
				}
			}
		}
		return nil, nil, false
	}
}
