package replication

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"

	"popfleet/internal/mtls"
	"popfleet/internal/strictjson"
)

// Config is replicator.json (docs/protocols/node.md).
type Config struct {
	Fleet      string     `json:"fleet"`
	Node       string     `json:"node"`
	Listen     string     `json:"listen"` // MongoDB wire protocol for the app; loopback
	Store      string     `json:"store"`  // mongodb://host:port
	PeerListen string     `json:"peer_listen"`
	Peers      []Peer     `json:"peers"`
	TLS        mtls.Files `json:"tls"`
	Control    string     `json:"control"`
}

// Peer is another node's replicator.
type Peer struct {
	Node    string `json:"node"`
	Address string `json:"address"`
}

// Default is what a node runs, but for who it is and whom it knows.
func Default() Config {
	return Config{Listen: "127.0.0.1:27017", Store: "mongodb://127.0.0.1:27018", PeerListen: ":7444",
		Control: "/run/fleet-replicator/control.sock"}
}

// Load reads and validates the file at path over the defaults.
func Load(path string) (Config, error) {
	c := Default()
	if err := strictjson.File(path, &c); err != nil {
		return c, err
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	all := []error{c.TLS.Validate()}
	if c.Fleet == "" || c.Node == "" {
		all = append(all, errors.New("fleet and node: expected names"))
	}
	if host, _, err := net.SplitHostPort(c.Listen); err != nil || !net.ParseIP(host).IsLoopback() {
		all = append(all, fmt.Errorf("listen %q: expected a loopback address with port: the app is on this node", c.Listen))
	}
	if _, _, err := net.SplitHostPort(c.PeerListen); err != nil {
		all = append(all, fmt.Errorf("peer_listen %q: expected [host]:port", c.PeerListen))
	}
	if !filepath.IsAbs(c.Control) {
		all = append(all, fmt.Errorf("control %q: expected an absolute path", c.Control))
	}
	if _, err := c.storeAddress(); err != nil {
		all = append(all, err)
	}
	return errors.Join(append(all, c.validatePeers()...)...)
}

func (c Config) validatePeers() (all []error) {
	seen := map[string]bool{c.Node: true}
	for i, p := range c.Peers {
		if seen[p.Node] {
			all = append(all, fmt.Errorf("peers[%d].node %q: named twice, or this node itself", i, p.Node))
		}
		seen[p.Node] = true
		if _, _, err := net.SplitHostPort(p.Address); err != nil {
			all = append(all, fmt.Errorf("peers[%d].address %q: expected host:port", i, p.Address))
		}
	}
	return all
}

// storeAddress is where the store's wire protocol listens. Bytes are forwarded unchanged, so whoever logs in to a
// database of their own does it end to end: credentials belong into the app's URI, not here.
func (c Config) storeAddress() (string, error) {
	u, err := url.Parse(c.Store)
	switch {
	case err != nil || u.Scheme != "mongodb" || u.Host == "":
		return "", fmt.Errorf("store: expected mongodb://HOST:PORT")
	case u.User != nil:
		return "", errors.New("store: holds credentials; expected none: the app's own login is forwarded unchanged")
	case u.RawQuery != "" || (u.Path != "" && u.Path != "/"):
		return "", fmt.Errorf("store %q: expected mongodb://HOST:PORT without database or options", u.Redacted())
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return net.JoinHostPort(u.Host, "27017"), nil
	}
	return u.Host, nil
}
