package playbooks

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/playbooks/spec"
)

// Secrets is where the compiler gets certificates; the vault stands behind it. Compile calls it once per service that
// asks for TLS. The same request must return the same bytes until the certificate is due, or nothing would ever be a
// no-op.
type Secrets interface {
	Leaf(service, node string, dnsNames []string) (certPEM, keyPEM []byte, err error)
	CACertPEM() ([]byte, error)
}

// Input is all that a node's spec follows from.
type Input struct {
	Fleet     *inventory.Fleet
	Node      string
	Addresses map[string][]netip.Addr // by node; a node without one does not exist yet and is nobody's peer
	Release   *spec.Release
	Secrets   Secrets
	Pace      pace.Pace
	Playbooks *Set // nil: the built-in ones
}

// Vars is what templates see.
type Vars struct {
	Fleet       Fleet
	Node        Node
	Nodes       []Node // all that have an address, in the order of the fleet file, this one included
	Controllers []string
	Store       Store
	DNS         DNS
	App         App
	Transport   Transport
	Services    []string // of all playbooks that apply, in order
	Ports       []OpenPort
	PeerUnlock  *PeerUnlock // nil: this fleet never had any
}

// Fleet names the fleet.
type Fleet struct{ Name, Domain string }

// Node is a node as configuration files show it.
type Node struct {
	Name      string          `json:"name"`
	PoP       string          `json:"pop"`
	Addresses []netip.Addr    `json:"addresses"` // IPv4 first
	Place     inventory.Place `json:"place"`
}

// Store is the database behind the replicator.
type Store struct {
	Embedded bool
	URI      string // as the replicator reaches it
}

// DNS is the zone's server. MMDB is a path on the node, or empty.
type DNS struct {
	TTL        string
	NS         []string // host names, no trailing dot
	MMDB       string
	MMDBSHA256 string
}

// App is the application: the release's file it runs, and its environment in the order of the names.
type App struct {
	Release string
	Env     []EnvVar
}

// EnvVar is one variable.
type EnvVar struct{ Name, Value string }

// Transport is the edge.
type Transport struct{ Names []string } // all host names it serves, the domain first

// OpenPort is an opening in the firewall and whose it is.
type OpenPort struct {
	Port     uint16
	Proto    string
	From     string
	Playbook string
}

// Peer is another node on one port.
type Peer struct {
	Node    string `json:"node"`
	PoP     string `json:"pop,omitempty"`
	Address string `json:"address"`
}

// Peers are the other nodes' addresses with the port.
func (v Vars) Peers(port int) []Peer {
	out := []Peer{}
	for _, n := range v.others() {
		out = append(out, Peer{Node: n.Name, Address: net.JoinHostPort(n.Addresses[0].String(), strconv.Itoa(port))})
	}
	return out
}

// PeersByPoP are the other nodes' addresses with the port, and where they are.
func (v Vars) PeersByPoP(port int) []Peer {
	out := v.Peers(port)
	for i, n := range v.others() {
		out[i].PoP = n.PoP
	}
	return out
}

func (v Vars) others() []Node {
	return slices.DeleteFunc(slices.Clone(v.Nodes), func(n Node) bool { return n.Name == v.Node.Name })
}

// PeerAddresses are the other nodes' addresses of one family, 4 or 6, sorted.
func (v Vars) PeerAddresses(family int) []netip.Addr {
	var out []netip.Addr
	for _, n := range v.others() {
		for _, a := range n.Addresses {
			if a.Is4() == (family == 4) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// Protocols are those that ports can be open for.
func (v Vars) Protocols() []string { return []string{"tcp", "udp"} }

// Open are the ports open to one source for one protocol, sorted.
func (v Vars) Open(proto, from string) []uint16 {
	var out []uint16
	for _, p := range v.Ports {
		if p.Proto == proto && p.From == from {
			out = append(out, p.Port)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func newVars(in Input) (Vars, error) {
	f := in.Fleet
	v := Vars{Fleet: Fleet{f.Name, f.Domain}}
	for _, n := range f.Resolved() {
		if a := ordered(in.Addresses[n.Name]); len(a) > 0 {
			v.Nodes = append(v.Nodes, Node{n.Name, n.PoP, a, n.Place})
		}
	}
	self := slices.IndexFunc(v.Nodes, func(n Node) bool { return n.Name == in.Node })
	if self < 0 {
		if _, known := f.Node(in.Node); !known {
			return v, fmt.Errorf("node %s is not in the fleet file", in.Node)
		}
		return v, fmt.Errorf("node %s has no address yet", in.Node)
	}
	v.Node = v.Nodes[self]
	for _, c := range f.Controllers {
		v.Controllers = append(v.Controllers, c.Address.String())
	}
	v.Transport.Names = append([]string{f.Domain}, f.Services.Transport.Names...)
	v.services(f.Services)
	return v, v.mmdb(f.Services.DNS.MMDB, in.Release)
}

// services fills what the fleet file says of each service, with the services' own defaults.
func (v *Vars) services(s inventory.Services) {
	v.Store = Store{Embedded: s.Store.Embedded(), URI: "mongodb://127.0.0.1:27018"}
	if !v.Store.Embedded {
		v.Store.URI = s.Store.URI
	}
	ttl := s.DNS.TTL
	if ttl == 0 {
		ttl = inventory.Default().Services.DNS.TTL
	}
	v.DNS.TTL, v.DNS.NS = ttl.String(), nameservers(v.Nodes, v.Fleet.Domain)
	binary := s.App.Binary
	if binary == "" {
		binary = inventory.Default().Services.App.Binary
	}
	v.App.Release = path.Join("bin", binary)
	for name, value := range s.App.Env {
		v.App.Env = append(v.App.Env, EnvVar{name, value})
	}
	slices.SortFunc(v.App.Env, func(a, b EnvVar) int { return strings.Compare(a.Name, b.Name) })
}

// mmdb finds the city database in the release: it is far too large for a spec.
func (v *Vars) mmdb(file string, r *spec.Release) error {
	if file == "" {
		return nil
	}
	name := path.Join("share", path.Base(file))
	f, ok := r.File(name)
	if !ok {
		return fmt.Errorf("services.dns.mmdb: the release has no %s; put %s there", name, path.Base(file))
	}
	v.DNS.MMDB, v.DNS.MMDBSHA256 = "/opt/fleet/current/"+name, f.SHA256
	return nil
}

const maxNameservers = 6

// nameservers are at most six nodes, taken from the PoPs in turn, so that one site's loss leaves most of them. Resolvers
// remember which ones answer; more names make every referral larger and nothing safer.
func nameservers(nodes []Node, domain string) []string {
	taken := make([]bool, len(nodes))
	var out []string
	for len(out) < min(maxNameservers, len(nodes)) {
		round := map[string]bool{}
		for i, n := range nodes {
			if taken[i] || round[n.PoP] || len(out) == maxNameservers {
				continue
			}
			taken[i], round[n.PoP] = true, true
			out = append(out, n.Name+"."+domain)
		}
	}
	return out
}

// ordered is IPv4 first, then by value: a provider may list them in any order, and the spec must not change with it.
func ordered(addrs []netip.Addr) []netip.Addr {
	out := slices.Clone(addrs)
	for i := range out {
		out[i] = out[i].Unmap()
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
