package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"popfleet/agents/collect"
	"popfleet/internal/mtls"
	"popfleet/internal/strictjson"
)

// Config is agent.json (docs/protocols/node.md).
type Config struct {
	Fleet       string            `json:"fleet"`
	Node        string            `json:"node"`
	PoP         string            `json:"pop"`
	Controllers []string          `json:"controllers"` // host:port; none: nobody is told
	Interval    Duration          `json:"interval"`
	Services    []collect.Service `json:"services"`
	Spool       string            `json:"spool"`
	TLS         mtls.Files        `json:"tls"`
	Control     string            `json:"control"`
}

// Duration is written as "10s".
type Duration time.Duration

// UnmarshalJSON reads a duration string.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(`expected a duration such as "10s"`)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf(`%q: expected a duration such as "10s"`, s)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// Bounds of the interval, whoever asks for one.
const (
	minInterval = time.Second
	maxInterval = 5 * time.Minute
)

// Default is what a node runs, but for who it is and whom it reports to.
func Default() Config {
	return Config{Interval: Duration(10 * time.Second), Spool: "/var/lib/fleet/agent", Control: "/run/fleet-agent/control.sock",
		TLS: mtls.Files{Cert: "/etc/fleet/tls/agent.crt", Key: "/etc/fleet/tls/agent.key", CA: "/etc/fleet/tls/ca.crt"}}
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
	if d := time.Duration(c.Interval); d < minInterval || d > maxInterval {
		all = append(all, fmt.Errorf("interval %s: expected %s to %s", d, minInterval, maxInterval))
	}
	for _, p := range []struct{ key, path string }{{"spool", c.Spool}, {"control", c.Control}} {
		if !filepath.IsAbs(p.path) {
			all = append(all, fmt.Errorf("%s %q: expected an absolute path", p.key, p.path))
		}
	}
	return errors.Join(append(append(all, c.validateControllers()...), c.validateServices()...)...)
}

func (c Config) validateControllers() (all []error) {
	seen := map[string]bool{}
	for i, a := range c.Controllers {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			all = append(all, fmt.Errorf("controllers[%d] %q: expected host:port", i, a))
		}
		if seen[a] {
			all = append(all, fmt.Errorf("controllers[%d] %q: named twice", i, a))
		}
		seen[a] = true
	}
	return all
}

func (c Config) validateServices() (all []error) {
	seen := map[string]bool{}
	for i, s := range c.Services {
		if s.Name == "" || seen[s.Name] {
			all = append(all, fmt.Errorf("services[%d].name %q: expected a name of its own", i, s.Name))
		}
		seen[s.Name] = true
		if !filepath.IsAbs(s.Control) {
			all = append(all, fmt.Errorf("services[%d].control %q: expected an absolute path", i, s.Control))
		}
	}
	return all
}
