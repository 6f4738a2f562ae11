package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	wire "github.com/miekg/dns"

	"popfleet/dns/feed"
	"popfleet/dns/zone"
	"popfleet/internal/strictjson"
)

// Config is dns.json.
type Config struct {
	Node    string   `json:"node"`
	Zone    string   `json:"zone"`
	Listen  []string `json:"listen"`
	NS      []string `json:"ns"`
	TTL     Duration `json:"ttl"`
	Nodes   []Node   `json:"nodes"`
	Aliases []string `json:"aliases"`         // labels beside the apex that lead to whoever serves; default www
	PoPs    int      `json:"pops_per_answer"` // with an mmdb, how many of the nearest PoPs an answer names; default 1
	MMDB    string   `json:"mmdb"`
	Feed    string   `json:"feed"`
	State   string   `json:"state"`
	Control string   `json:"control"`
}

// Node is a node as configured: its name is always answered, and it is in the map until the first snapshot arrives.
type Node struct {
	Name      string       `json:"name"`
	PoP       string       `json:"pop"`
	Addresses []netip.Addr `json:"addresses"`
	Place     struct {
		Lat float64 `json:"lat"`
		Lon float64 `json:"lon"`
	} `json:"place"`
}

// Duration is written as "30s".
type Duration time.Duration

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Default is complete but for what only the fleet knows: node, zone, ns, nodes and the paths.
func Default() Config {
	return Config{Listen: []string{":53"}, TTL: Duration(30 * time.Second), Aliases: []string{"www"}, PoPs: 1}
}

// Load reads and validates the file at path.
func Load(path string) (Config, error) {
	c := Default()
	if err := strictjson.File(path, &c); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Validate returns every problem at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(feed.Label(c.Node), "node %q is not a node's name", c.Node)
	check(domain(c.Zone), "zone %q is not a domain name in lower case without trailing dot", c.Zone)
	check(len(c.Listen) > 0, "listen is empty; :53 is usual")
	for _, l := range c.Listen {
		_, _, err := net.SplitHostPort(l)
		check(err == nil, "listen %q is not host:port", l)
	}
	ttl := time.Duration(c.TTL)
	check(ttl >= time.Second && ttl <= time.Hour, "ttl %s is not between 1s and 1h", ttl)
	check(c.PoPs >= 1, "pops_per_answer %d is less than 1", c.PoPs)
	check(c.Feed != "", "feed is empty: the unix socket the transport writes to")
	check(c.State != "", "state is empty: the directory that keeps the last map")
	check(c.Control != "", "control is empty: the path of the control socket")
	for _, a := range c.Aliases {
		check(domain(a), "alias %q is not a name inside the zone", a)
	}
	errs = append(errs, c.startMap().Check())
	for _, n := range c.Nodes {
		check(len(n.Addresses) > 0, "node %q has no address", n.Name)
	}
	errs = append(errs, c.checkNS())
	return errors.Join(errs...)
}

// checkNS holds the delegation together: a name server inside the zone must be a node, or nobody could find it.
func (c Config) checkNS() error {
	if len(c.NS) == 0 {
		return errors.New("ns is empty: the names the parent zone delegates to")
	}
	var errs []error
	nodes := map[string]bool{}
	for _, n := range c.Nodes {
		nodes[n.Name+"."+c.Zone] = true
	}
	for _, ns := range c.NS {
		switch {
		case !domain(ns):
			errs = append(errs, fmt.Errorf("ns %q is not a domain name in lower case without trailing dot", ns))
		case strings.HasSuffix(ns, "."+c.Zone) && !nodes[ns]:
			errs = append(errs, fmt.Errorf("ns %q is inside the zone but no node has that name, so it would have no address", ns))
		}
	}
	return errors.Join(errs...)
}

func domain(s string) bool {
	if _, ok := wire.IsDomainName(s); !ok {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !feed.Label(label) {
			return false
		}
	}
	return true
}

// startMap is what is believed before anyone said anything: everybody serves.
func (c Config) startMap() feed.Map {
	m := feed.Map{V: 1, From: "config"}
	for _, n := range c.Nodes {
		m.Nodes = append(m.Nodes, feed.Node{Name: n.Name, PoP: n.PoP, State: feed.Serving,
			Addresses: n.Addresses, Lat: n.Place.Lat, Lon: n.Place.Lon})
	}
	return m
}

func (c Config) names() zone.Names {
	n := zone.Names{Origin: wire.Fqdn(c.Zone)}
	for _, ns := range c.NS {
		n.NS = append(n.NS, wire.Fqdn(ns))
	}
	for _, a := range c.Aliases {
		n.Live = append(n.Live, a+"."+n.Origin)
	}
	return n
}
