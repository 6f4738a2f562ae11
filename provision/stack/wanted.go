package stack

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/crypto/ssh"

	"popfleet/inventory"
	"popfleet/playbooks/spec"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
)

// ProviderName is the provider whose machines this package handles, in the fleet file's words.
const ProviderName = "hetznercloud"

// Wanted is everything that should exist at the provider for one fleet.
type Wanted struct {
	Fleet           string
	SSHKey          hetznercloud.SSHKeySpec
	Firewall        hetznercloud.FirewallSpec
	Networks        []hetznercloud.NetworkSpec
	PlacementGroups []hetznercloud.PlacementGroupSpec
	Servers         []Server
	Dedicated       []Dedicated
}

// cloud says whether there is anything at Hetzner Cloud; a fleet of dedicated servers needs no project there.
func (w Wanted) cloud() bool { return len(w.Servers) > 0 }

func (w Wanted) nodes() []string {
	var out []string
	for _, s := range w.Servers {
		out = append(out, s.Node)
	}
	for _, s := range w.Dedicated {
		out = append(out, s.Node)
	}
	return out
}

// Dedicated is a server that is taken over.
type Dedicated struct {
	Node     string
	Provider string
	Server   string // the provider's name for it
	Reverse  string // reverse DNS name; empty for none
}

// Key is the server's name inside the fleet's stack.
func (s Dedicated) Key() string { return "server." + s.Node }

// Server is one wanted server with the objects it refers to, by key.
type Server struct {
	Node           string
	Name           string
	ServerType     string
	Location       string
	Elsewhere      []provider.Place // taken in order when there is no room
	Image          string
	Network        string // key; empty where the location's network zone is not known
	PlacementGroup string // key; empty when its PoP has more nodes than a group holds
	Reverse        string // reverse DNS name; empty for none
	Labels         map[string]string
}

// Key is the server's name inside the fleet's stack.
func (s Server) Key() string { return "server." + s.Node }

// Want derives what should exist from the fleet file and the public half of the fleet's SSH key. It is pure.
func Want(f inventory.Fleet, sshPublicKey string) (Wanted, error) {
	fingerprint, err := keyTag(sshPublicKey)
	if err != nil {
		return Wanted{}, err
	}
	w := Wanted{
		Fleet: f.Name,
		SSHKey: hetznercloud.SSHKeySpec{Name: f.Name + "-" + fingerprint, PublicKey: sshPublicKey,
			Labels: hetznercloud.Labels(f.Name, "", "ssh-key")},
		Firewall: hetznercloud.FirewallSpec{Name: f.Name, Rules: openPorts(),
			Labels: hetznercloud.Labels(f.Name, "", "firewall")},
	}
	zones := map[string]bool{}
	for _, pop := range f.PoPs {
		servers := serversOf(f, pop)
		if len(servers) > 0 && servers[0].PlacementGroup != "" {
			w.PlacementGroups = append(w.PlacementGroups, placementGroup(f.Name, pop.Name))
		}
		for _, s := range servers {
			zones[zoneOf[s.Location]] = true
		}
		w.Servers = append(w.Servers, servers...)
		w.Dedicated = append(w.Dedicated, dedicatedOf(f, pop)...)
	}
	delete(zones, "")
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		w.Networks = append(w.Networks, network(f.Name, zone))
	}
	return w, w.check()
}

func (w Wanted) check() error {
	for _, s := range w.Servers {
		if err := hetznercloud.CheckLabels(s.Labels); err != nil {
			return fmt.Errorf("node %s: %w", s.Node, err)
		}
	}
	return nil
}

// groupLimit is how many servers the provider keeps apart in one placement group.
const groupLimit = 10

func serversOf(f inventory.Fleet, pop inventory.PoP) []Server {
	var out []Server
	for _, node := range pop.Nodes {
		m := nearest(f.Defaults, pop.Machine, node.Machine)
		if m.Provider != "" && m.Provider != ProviderName {
			continue
		}
		s := Server{Node: node.Name, Name: f.Name + "-" + node.Name,
			ServerType: m.ServerType, Location: m.Location, Image: m.Image}
		for _, o := range m.Elsewhere {
			s.Elsewhere = append(s.Elsewhere, provider.Place{Type: o.ServerType, Location: o.Location})
		}
		s.Labels = hetznercloud.Labels(f.Name, node.Name, s.Key())
		if f.Domain != "" {
			s.Reverse = node.Name + "." + f.Domain
		}
		if zone := zoneOf[m.Location]; zone != "" {
			s.Network = networkKey(zone)
		}
		out = append(out, s)
	}
	for i := range out {
		if len(out) <= groupLimit {
			out[i].PlacementGroup = placementKey(pop.Name)
		}
	}
	return out
}

func dedicatedOf(f inventory.Fleet, pop inventory.PoP) []Dedicated {
	var out []Dedicated
	for _, node := range pop.Nodes {
		m := nearest(f.Defaults, pop.Machine, node.Machine)
		if !m.Dedicated() {
			continue
		}
		s := Dedicated{Node: node.Name, Provider: m.Provider, Server: m.Server}
		if f.Domain != "" {
			s.Reverse = node.Name + "." + f.Domain
		}
		out = append(out, s)
	}
	return out
}

// nearest merges machine descriptions; the last that says something wins.
func nearest(machines ...inventory.Machine) inventory.Machine {
	out := inventory.Machine{ServerType: "cx23", Location: "fsn1", Image: "debian-12"}
	for _, m := range machines {
		pick(&out.Provider, m.Provider)
		pick(&out.ServerType, m.ServerType)
		pick(&out.Location, m.Location)
		pick(&out.Image, m.Image)
		pick(&out.Server, m.Server)
		if len(m.Elsewhere) > 0 {
			out.Elsewhere = m.Elsewhere
		}
	}
	return out
}

func pick(to *string, v string) {
	if v != "" {
		*to = v
	}
}

// zoneOf maps locations to network zones; a private network spans one zone (docs.hetzner.com, Networks overview).
var zoneOf = map[string]string{
	"fsn1": "eu-central", "nbg1": "eu-central", "hel1": "eu-central",
	"ash": "us-east", "hil": "us-west", "sin": "ap-southeast",
}

// rangeOf gives each zone a range of its own that never moves, so that two zones can be joined later.
var rangeOf = map[string]netip.Prefix{
	"eu-central":   netip.MustParsePrefix("10.77.0.0/18"),
	"us-east":      netip.MustParsePrefix("10.77.64.0/18"),
	"us-west":      netip.MustParsePrefix("10.77.128.0/18"),
	"ap-southeast": netip.MustParsePrefix("10.77.192.0/18"),
}

func networkKey(zone string) string { return "network." + zone }

func network(fleet, zone string) hetznercloud.NetworkSpec {
	r := rangeOf[zone]
	return hetznercloud.NetworkSpec{Name: fleet + "-" + zone, Zone: zone, Range: r.String(),
		Subnet: netip.PrefixFrom(r.Addr(), 24).String(), Labels: hetznercloud.Labels(fleet, "", networkKey(zone))}
}

func placementKey(pop string) string { return "placement." + pop }

func placementGroup(fleet, pop string) hetznercloud.PlacementGroupSpec {
	return hetznercloud.PlacementGroupSpec{Name: fleet + "-" + pop, Labels: hetznercloud.Labels(fleet, "", placementKey(pop))}
}

// openPorts are what nodes answer on; the nodes' own nftables hold the same list.
func openPorts() []hetznercloud.Rule {
	return []hetznercloud.Rule{
		{Protocol: "tcp", Port: "22", Description: "ssh"},
		{Protocol: "tcp", Port: "2222", Description: "unlock"},
		{Protocol: "tcp", Port: "53", Description: "dns"},
		{Protocol: "udp", Port: "53", Description: "dns"},
		{Protocol: "tcp", Port: "80", Description: "http"},
		{Protocol: "tcp", Port: "443", Description: "https"},
		{Protocol: "tcp", Port: "7443", Description: "mesh"},
		{Protocol: "tcp", Port: "7444", Description: "replication"},
		{Protocol: "tcp", Port: strconv.Itoa(spec.SharePort), Description: "passing content on"}, // rescue systems too
		{Protocol: "icmp", Description: "ping"},
	}
}

// keyTag names a public key shortly, so that a new fleet key can be uploaded beside the old one.
func keyTag(publicKey string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil {
		return "", fmt.Errorf("fleet SSH key: expected one line of authorized_keys: %w", err)
	}
	return fmt.Sprintf("%x", sha256sum(key.Marshal()))[:8], nil
}

// keys are the names of all wanted objects inside the stack.
func (w Wanted) keys() map[string]bool {
	out := map[string]bool{"ssh-key": w.cloud(), "firewall": w.cloud()}
	for _, n := range w.Networks {
		out[n.Labels[hetznercloud.LabelKey]] = true
	}
	for _, g := range w.PlacementGroups {
		out[g.Labels[hetznercloud.LabelKey]] = true
	}
	for _, s := range w.Servers {
		out[s.Key()] = true
		if s.Reverse != "" {
			out["reverse4."+s.Node], out["reverse6."+s.Node] = true, true
		}
	}
	for _, s := range w.Dedicated {
		out[s.Key()] = true
		if s.Reverse != "" {
			out["reverse4."+s.Node], out["reverse6."+s.Node] = true, true
		}
	}
	return out
}
