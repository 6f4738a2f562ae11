package inventory

import "time"

// Names of what may be said in a fleet file.
const (
	ProviderHetznerCloud = "hetznercloud"
	ProviderHetznerRobot = "hetznerrobot"
	ProviderOVH          = "ovh"
	StoreEmbedded        = "embedded"

	CrossCheckWhenPossible = "when-possible"
	CrossCheckRequired     = "required"
)

// providers are the providers of this build.
var providers = []string{ProviderHetznerCloud, ProviderHetznerRobot, ProviderOVH}

// Dedicated reports whether the machine is one that is taken over rather than created.
func (m Machine) Dedicated() bool {
	return m.Provider == ProviderHetznerRobot || m.Provider == ProviderOVH
}

// Default is the fleet with everything that has a default, and nothing that must be said: name, domain, controllers,
// PoPs and the location of machines.
func Default() *Fleet {
	return &Fleet{
		Version: 1,
		Defaults: Machine{
			Provider:   ProviderHetznerCloud,
			ServerType: "cx23",
			Image:      "debian-12",
			Disks:      Disks{MinGB: 8},
		},
		Unlock: Unlock{RecentlyAlive: 15 * time.Minute, CrossCheck: CrossCheckWhenPossible},
		Services: Services{
			Store: Store{URI: StoreEmbedded},
			DNS:   DNS{TTL: 30 * time.Second},
			App:   App{Binary: "comments"},
		},
	}
}

// Embedded reports whether the store is the one that comes with the release.
func (s Store) Embedded() bool { return s.URI == "" || s.URI == StoreEmbedded }

// Resolved is a node with everything that its PoP and the defaults say.
type Resolved struct {
	Name    string
	PoP     string
	Place   Place
	Machine Machine
}

// Resolved returns every node, in the order of the file.
func (f *Fleet) Resolved() []Resolved {
	var nodes []Resolved
	for _, p := range f.PoPs {
		for _, n := range p.Nodes {
			m := n.Machine.over(p.Machine).over(f.Defaults)
			nodes = append(nodes, Resolved{Name: n.Name, PoP: p.Name, Place: p.Place, Machine: m})
		}
	}
	return nodes
}

// Node returns the node called name, and whether there is one.
func (f *Fleet) Node(name string) (Resolved, bool) {
	for _, n := range f.Resolved() {
		if n.Name == name {
			return n, true
		}
	}
	return Resolved{}, false
}

// over returns m with what it does not say taken from under.
func (m Machine) over(under Machine) Machine {
	m.Provider = first(m.Provider, under.Provider)
	m.ServerType = first(m.ServerType, under.ServerType)
	m.Location = first(m.Location, under.Location)
	if len(m.Elsewhere) == 0 {
		m.Elsewhere = under.Elsewhere
	}
	m.Image = first(m.Image, under.Image)
	m.Disks.MinGB = first(m.Disks.MinGB, under.Disks.MinGB)
	if len(m.Disks.Serials) == 0 {
		m.Disks.Serials = under.Disks.Serials
	}
	return m
}

func first[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}
