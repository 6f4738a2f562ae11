package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"popfleet/dns/feed"
	"popfleet/internal/strictjson"
	"popfleet/transport/certs"
	"popfleet/transport/mesh"
)

// Config is transport.json.
type Config struct {
	Fleet     string       `json:"fleet"`
	Node      string       `json:"node"`
	PoP       string       `json:"pop"`
	Place     mesh.Place   `json:"place"`
	Addresses []netip.Addr `json:"addresses"` // public, what dns answers for this node
	Listen    string       `json:"listen"`
	Redirect  string       `json:"redirect"` // plain HTTP; empty: none
	App       string       `json:"app"`
	Health    string       `json:"health"` // path asked of the application every second; 2xx and 3xx are well
	Mesh      string       `json:"mesh_listen"`
	Peers     []mesh.Peer  `json:"peers"`
	Names     []string     `json:"names"`
	Feed      string       `json:"dns_feed"` // empty: no local dns
	TLS       certs.Paths  `json:"tls"`
	Drain     Drain        `json:"drain"`
	Limits    Limits       `json:"limits"`
	Control   string       `json:"control"`
}

// Drain says how long leaving takes.
type Drain struct {
	Grace Duration `json:"grace"` // new connections are still taken: until DNS answers have moved
	Max   Duration `json:"max"`   // then what runs may still take this long
}

// Limits of the node. It calls itself full at Requests, and serving again at four fifths of it.
type Limits struct {
	Requests  int64 `json:"requests"`
	Streams   int64 `json:"streams"`
	BodyBytes int64 `json:"body_bytes"`
}

// Duration is written as "30s".
type Duration time.Duration

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Default is complete but for what only the fleet knows. The grace covers a DNS TTL of 30 s.
func Default() Config {
	return Config{Listen: ":443", Redirect: ":80", Mesh: ":7443", App: "http://127.0.0.1:8080", Health: "/healthz",
		Drain:  Drain{Grace: Duration(35 * time.Second), Max: Duration(30 * time.Second)},
		Limits: Limits{Requests: 2000, Streams: 20000, BodyBytes: 100 << 20}}
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
	check(c.Fleet != "", "fleet is empty")
	check(len(c.Addresses) > 0, "addresses is empty: what dns answers for this node")
	for name, address := range map[string]string{"listen": c.Listen, "mesh_listen": c.Mesh, "redirect": c.Redirect} {
		_, _, err := net.SplitHostPort(address)
		check(err == nil || name == "redirect" && address == "", "%s %q is not host:port", name, address)
	}
	app, err := url.Parse(c.App)
	check(err == nil && app.Scheme == "http" && app.Host != "" && strings.Trim(app.Path, "/") == "", "app %q is not http://host:port", c.App)
	check(strings.HasPrefix(c.Health, "/"), "health %q is not a path", c.Health)
	check(len(c.Names) > 0, "names is empty: the domains served")
	for _, n := range c.Names {
		check(n == strings.ToLower(n) && strings.Trim(n, ".") == n && n != "", "name %q is not a domain name in lower case without trailing dot", n)
	}
	check(c.Control != "", "control is empty: the path of the control socket")
	check(c.Drain.Grace >= 0 && c.Drain.Max >= 0, "drain times can't be negative")
	check(c.Limits.Requests > 0 && c.Limits.Streams > 0 && c.Limits.BodyBytes > 0, "limits must be positive")
	errs = append(errs, c.TLS.Check(), c.checkNodes())
	return errors.Join(errs...)
}

// checkNodes holds this node and its peers to what the map accepts.
func (c Config) checkNodes() error {
	var errs []error
	m := feed.Map{V: 1, From: "config", Nodes: []feed.Node{{Name: c.Node, PoP: c.PoP, State: feed.Serving, Addresses: c.Addresses, Lat: c.Place.Lat, Lon: c.Place.Lon}}}
	for _, p := range c.Peers {
		m.Nodes = append(m.Nodes, feed.Node{Name: p.Node, PoP: p.PoP, State: feed.Dead})
		if _, _, err := net.SplitHostPort(p.Address); err != nil {
			errs = append(errs, fmt.Errorf("peer %q: address %q is not host:port", p.Node, p.Address))
		}
	}
	return errors.Join(append(errs, m.Check())...)
}
