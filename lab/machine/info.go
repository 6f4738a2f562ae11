package machine

import "net/netip"

// Words for Info.Provider, the same as in a fleet file.
const (
	HetznerCloud = "hetznercloud"
	HetznerRobot = "hetznerrobot"
	OVH          = "ovh"
)

// Info is one rented machine as the lab's operator sees it, whoever rents it out.
type Info struct {
	Provider string
	ID       string // the provider's: a number, or OVH's service name
	Name     string // people's
	Status   string // as the provider's API says
	Rescue   bool   // what the next boot is told to be
	Address  netip.Addr
	Prefix6  netip.Prefix
	Machine  Machine // nil until it is made
}

// Names are all names the machine goes by, as faults know it.
func (i Info) Names() []string {
	return []string{i.ID, i.Name, i.Address.String()}
}

// Has says whether an address is this machine's.
func (i Info) Has(a netip.Addr) bool {
	return i.Address == a || a.Is6() && i.Prefix6.IsValid() && i.Prefix6.Contains(a)
}
