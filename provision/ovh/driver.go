// Package ovh is the driver for OVH dedicated servers, and the only package that imports go-ovh. It adopts servers that
// the fleet file names, starts them into OVH's rescue system and back from their disk, watches the tasks in between, and,
// apart from that and only when asked to, orders new ones (the order*.go files).
//
// It never decides what a node needs next (provision/lifecycle does), never orders or pays as part of a [provider.Provider]
// method, never cancels a contract, never logs or returns a key, and never retries for ever. A call fails with an [Error]
// that says what was tried, why it stopped and what an operator can do; transient answers are retried inside a budget,
// aloud, through the callback of [provider.WithWaiting].
//
// The rescue system's host keys are trusted on first use. OVH publishes none, and the one documented way to plant one, an
// iPXE bootScript, means to serve a kernel and a root file system of ours over plain HTTP from an address that every
// server reaches before it has a key of any kind: the planted key would cross the same network in the clear that it is to
// protect against. So this driver says tofu, and what is installed afterwards is keyed anew.
package ovh

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	sdk "github.com/ovh/go-ovh/ovh"

	"popfleet/internal/pace"
	"popfleet/provision/provider"
)

// Secret is what the driver needs of a secret: its bytes, for each call.
type Secret interface{ Reveal() []byte }

// Options make a driver. The three keys are required.
type Options struct {
	Endpoint          string // a name as go-ovh knows it (ovh-eu, ovh-ca, ovh-us, …) or a URL; default ovh-eu
	ApplicationKey    Secret
	ApplicationSecret Secret
	ConsumerKey       Secret
	Transport         http.RoundTripper // default: a clone of the standard one
	Pace              pace.Pace         // scales the waits for tasks, not those for HTTP
	Log               *slog.Logger      // default: discard

	// Servers are the fleet's machines: OVH's service name (ns1234567.ip-192-0-2.eu) by node name.
	Servers map[string]string
	// RescueMail, if set, receives OVH's mail about the rescue system instead of the account's contact.
	RescueMail string

	CallTimeout time.Duration // of one HTTP call; default 30 s
	Budget      time.Duration // for retrying one step; default 2 min × pace
	Backoff     time.Duration // first pause between tries, and between polls; default 500 ms
}

func (o Options) withDefaults() Options {
	if o.Endpoint == "" {
		o.Endpoint = "ovh-eu"
	}
	if o.Pace <= 0 {
		o.Pace = pace.Real
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = 30 * time.Second
	}
	if o.Budget <= 0 {
		o.Budget = o.Pace.Of(2 * time.Minute)
	}
	if o.Backoff <= 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	return o
}

// Driver talks to OVH for one account. It is safe for concurrent use.
type Driver struct {
	opts     Options
	endpoint string // without a trailing slash
	clock    *clock
	ordering chan struct{} // holds one token while an order is placed

	mu       sync.Mutex
	services map[string]string         // service name by node; guarded by mu
	boots    map[string]map[int64]boot // boots that were read, by service; OVH never changes one; guarded by mu
	disks    map[string]int64          // the harddisk boot a service had before rescue; guarded by mu
	nets     map[string]addresses      // guarded by mu
	placed   map[int64]string          // cart by order, of this process; guarded by mu
}

var _ provider.Provider = (*Driver)(nil)

// New returns a driver. It does not talk to the API yet.
func New(o Options) (*Driver, error) {
	o = o.withDefaults()
	for what, key := range map[string]Secret{"application key": o.ApplicationKey,
		"application secret": o.ApplicationSecret, "consumer key": o.ConsumerKey} {
		if key == nil || len(key.Reveal()) == 0 {
			return nil, &Error{Op: "ovh", Kind: provider.ErrUnauthorized, Hint: keyHint, Err: fmt.Errorf("no %s", what)}
		}
	}
	endpoint, err := endpointURL(o.Endpoint)
	if err != nil {
		return nil, &Error{Op: "ovh", Err: err}
	}
	if err := checkServices(o.Servers); err != nil {
		return nil, &Error{Op: "ovh", Err: err}
	}
	services := maps.Clone(o.Servers)
	if services == nil {
		services = map[string]string{}
	}
	return &Driver{opts: o, endpoint: endpoint, clock: newClock(), services: services, boots: map[string]map[int64]boot{},
		disks: map[string]int64{}, nets: map[string]addresses{},
		placed: map[int64]string{}, ordering: make(chan struct{}, 1)}, nil
}

func endpointURL(s string) (string, error) {
	if known, ok := sdk.Endpoints[s]; ok {
		return known, nil
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("endpoint %q: expected ovh-eu, ovh-ca, ovh-us or a URL", s)
	}
	return strings.TrimRight(s, "/"), nil
}

// serviceName is what becomes part of a path.
var serviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)

func checkServices(services map[string]string) error {
	owner := map[string]string{}
	for node, service := range services {
		if !serviceName.MatchString(service) {
			return fmt.Errorf("server %q of node %s: expected a service name like ns1234567.ip-192-0-2.eu", service, node)
		}
		if other, taken := owner[service]; taken {
			return fmt.Errorf("server %s belongs to two nodes, %s and %s", service, min(node, other), max(node, other))
		}
		owner[service] = node
	}
	return nil
}

// Close drops idle connections. The driver owns no goroutine.
func (d *Driver) Close() {
	if t, ok := d.opts.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// say tells whoever listens what is waited for.
func say(ctx context.Context, format string, args ...any) {
	provider.Waiting(ctx)(fmt.Sprintf(format, args...))
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
