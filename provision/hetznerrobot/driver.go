// Package hetznerrobot is the driver for Hetzner's dedicated servers. It speaks the Robot webservice: form-encoded
// requests, wrapped JSON answers, and limits per endpoint that are smaller than a fleet's appetite.
//
// It takes over servers that the fleet file names by number; it never orders one on its own (order.go is for a caller that
// has asked a person) and never cancels a contract. A rescue system is entered only by the host keys that Robot publishes
// for that very boot: there is no trust on first use here.
//
// A call fails with a [provider.Error]. Reads are repeated inside a budget, aloud; what presses a button or spends money
// is sent once, and after a lost reply the driver looks before it goes on. One refused password stops the driver for good,
// because Robot blocks the source address after three.
package hetznerrobot

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
	_ "time/tzdata" // Robot writes times of Berlin, and the operator's machine may have no zones

	"popfleet/internal/pace"
	"popfleet/provision/provider"
)

var _ provider.Provider = (*Driver)(nil)

// Secret is what the driver needs of a secret: its bytes.
type Secret interface{ Reveal() []byte }

// DefaultEndpoint is the public webservice.
const DefaultEndpoint = "https://robot-ws.your-server.de"

// Options make a driver. User and Password are required; they are those of a webservice user, not of the Robot login.
type Options struct {
	User, Password Secret
	Endpoint       string            // default: [DefaultEndpoint]
	Transport      http.RoundTripper // default: a clone of the standard one
	Pace           pace.Pace         // scales the waits for machines, not those for HTTP
	Log            *slog.Logger      // default: discard

	Servers map[string]string // node → server number, as in the fleet file
	Keys    []string          // the fleet's public keys, one authorized_keys line each: rescue armed with one is ours

	CallTimeout time.Duration // of one HTTP call; default 20 s
	Budget      time.Duration // for retrying one step; default 2 min × pace
	Backoff     time.Duration // first pause between tries; default 500 ms
	Poll        time.Duration // pause between looks for a boot, doubled later; default 5 s, less at a pace below 1
	Hour        time.Duration // what the limits count by; default an hour, a simulator's may be shorter
}

func (o Options) withDefaults() Options {
	if o.Pace <= 0 {
		o.Pace = pace.Real
	}
	setDefault(&o.CallTimeout, 20*time.Second)
	setDefault(&o.Budget, o.Pace.Of(2*time.Minute))
	setDefault(&o.Backoff, 500*time.Millisecond)
	setDefault(&o.Poll, min(5*time.Second, o.Pace.Of(5*time.Second)))
	setDefault(&o.Hour, time.Hour)
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	return o
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d <= 0 {
		*d = to
	}
}

// Driver talks to one Robot account. It is safe for concurrent use; all nodes of a run share one, because they share the
// account's limits.
type Driver struct {
	opts   Options
	client *client
	limits map[class]*limiter
	zone   *time.Location
	list   serverList
	boots  bootClock

	uploading chan struct{} // holds a token while a key is looked up or uploaded
	ordering  chan struct{} // holds a token while an order is placed

	mu      sync.Mutex
	keys    map[string]bool      // MD5 fingerprints that are ours; true once the account is known to hold them
	resets  map[int]resetOptions // by server number: what Robot offers does not change in a run
	manuals map[int]time.Time    // servers whose reset was refused because a person works on them
}

// New returns a driver. It does not talk to Robot yet.
func New(o Options) (*Driver, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		return nil, &provider.Error{Op: "hetzner robot", Err: fmt.Errorf("time zone of Robot: %w", err)}
	}
	o.Servers = maps.Clone(o.Servers)
	d := &Driver{opts: o, client: newClient(o), limits: newLimits(o.Hour), zone: zone,
		uploading: make(chan struct{}, 1), ordering: make(chan struct{}, 1),
		keys: map[string]bool{}, resets: map[int]resetOptions{}, manuals: map[int]time.Time{}}
	d.list.lock = make(chan struct{}, 1)
	for _, line := range o.Keys {
		fp, err := fingerprintMD5(line)
		if err != nil {
			return nil, &provider.Error{Op: "hetzner robot", Err: fmt.Errorf("key of the fleet: %w", err)}
		}
		d.keys[fp] = false
	}
	return d, nil
}

func (o Options) check() error {
	for _, s := range []Secret{o.User, o.Password} {
		if s == nil || len(s.Reveal()) == 0 {
			return &provider.Error{Op: "hetzner robot", Kind: provider.ErrUnauthorized, Hint: loginHint,
				Err: fmt.Errorf("no user or no password")}
		}
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return &provider.Error{Op: "hetzner robot", Err: fmt.Errorf("endpoint: expected https://host")}
	}
	for node, number := range o.Servers {
		if _, err := parseNumber("server of "+node, number); err != nil {
			return err
		}
	}
	return nil
}

// Close drops idle connections. The driver has no goroutines of its own.
func (d *Driver) Close() {
	if t, ok := d.opts.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// parseNumber reads a server number.
func parseNumber(op, id string) (int, error) {
	n, err := strconv.Atoi(id)
	if err != nil || n <= 0 || n > 1<<31-1 || strconv.Itoa(n) != id {
		return 0, &provider.Error{Op: op, Err: fmt.Errorf("%.40q is no server number", id),
			Hint: "Robot numbers servers, as 321; the number stands beside the server's name in Robot"}
	}
	return n, nil
}

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
