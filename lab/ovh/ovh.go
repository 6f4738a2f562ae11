// Package ovh simulates the part of OVH's API that rents out dedicated servers, in front of machines of the lab:
// signed requests, servers with their sticky boot choice, tasks that are not there yet, interventions, reverse names,
// and the order of a new server; with the faults of lab/faults.
//
// It takes its machines from a machine.Backend and decides what they boot. It knows nothing of what runs on them, and
// shares no code with the driver it is there to test. Shapes follow the provider's published API description (the
// shopping cart is in none); behaviour follows its documentation and what users of it report. What it does not simulate
// answers 404 with an error body that says so, and what the provider would ignore in a request it refuses. State is
// kept in one JSON file, so that a restarted lab finds its servers as they were; without a path it lives in memory.
package ovh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh/api"
)

// Options is what an account needs. The keys and Backend are required.
type Options struct {
	ApplicationKey, ApplicationSecret, ConsumerKey string
	// Rules is what the consumer key may do; nil is everything.
	Rules   []api.Rule
	Backend machine.Backend
	Faults  *faults.Set
	// Machines are the servers the account has from the beginning.
	Machines []Rented
	// Deliver describes the machine of an order. It is asked again after a restart and must answer the same.
	Deliver func(Delivery) Rented
	// Region is EU, CA or US: boot ids differ between them. "" is EU.
	Region string
	// Endpoint is the API's URL as clients write it, when they do not see the address it listens on. It ends in /1.0.
	Endpoint string
	// StatePath is the state file; "" keeps everything in memory.
	StatePath string
	// Delay is how long something takes at the provider; nil is Realistic.
	Delay func(what string) time.Duration
	// Resolve looks up a name before it becomes an address's reverse name; nil takes every name.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	Log     *slog.Logger
	// Now is the provider's clock before its skew; nil is the clock of this machine.
	Now func() time.Time
}

// Rented is a dedicated server as it is delivered.
type Rented struct {
	ServiceName string         // ns1001.ip-198-19-1.eu
	Machine     machine.Config // NextBoot and Stopped are set here; Name is the server's number
	Datacenter  string         // as the API writes it: gra3, rbx8
	BootMode    string         // legacy | uefi; "" follows the machine's firmware
	Range       string         // its commercial range: Rise-1
}

// What can take time; TaskFresh is how long a new task is not found, Queue each step from init to doing, Monitor how
// long a monitored machine may be silent. Functions of tasks take their own time.
const (
	TaskFresh = "task-fresh"
	Queue     = "queue"
	Monitor   = "monitor"
	Payment   = "payment"
	Deliver   = "delivery"
	Reboot    = "hardReboot"
	Reinstall = "reinstallServer"
)

// Realistic are times like the provider's, but for deliveries and installs, which take hours and many minutes.
func Realistic(what string) time.Duration {
	switch what {
	case TaskFresh, Queue, Payment:
		return 2 * time.Second
	case Monitor:
		return 5 * time.Minute
	case Deliver, Reinstall:
		return time.Minute
	}
	return 20 * time.Second
}

// Every returns delays that are all d, but for Monitor: how long a silent machine is left alone stays realistic.
func Every(d time.Duration) func(string) time.Duration {
	return func(what string) time.Duration {
		if what == Monitor {
			return Realistic(what)
		}
		return d
	}
}

// OVH is one account at the simulated provider.
type OVH struct {
	opt Options

	life context.Context // ends with Close; bounds what tasks do to machines
	stop context.CancelFunc
	work sync.WaitGroup // running tasks and the watch

	mu     sync.Mutex
	state  *state        // guarded by mu
	skew   time.Duration // guarded by mu: of the provider's clock
	closed bool          // guarded by mu: no more work is begun
}

// New opens the account: it loads the state file, takes back the machines that still exist, switches on those that are
// new, and goes on with the tasks and deliveries that were running.
func New(ctx context.Context, opt Options) (*OVH, error) {
	if opt.ApplicationKey == "" || opt.ApplicationSecret == "" || opt.ConsumerKey == "" || opt.Backend == nil {
		return nil, errors.New("ovh simulator: an application key, its secret, a consumer key and a backend are needed")
	}
	if err := fill(&opt); err != nil {
		return nil, err
	}
	opt.Faults.Know(allNames())
	st, err := loadState(opt.StatePath)
	if err != nil {
		return nil, err
	}
	o := &OVH{opt: opt, state: st}
	st.Shop.Bind(o.shopping())
	o.life, o.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := o.open(ctx); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

func fill(opt *Options) error {
	if opt.Faults == nil {
		opt.Faults = &faults.Set{}
	}
	if opt.Region == "" {
		opt.Region = "EU"
	}
	if _, ok := netboots[opt.Region]; !ok {
		return fmt.Errorf("ovh simulator: region %q: expected EU, CA or US", opt.Region)
	}
	if opt.Endpoint != "" && !strings.HasSuffix(opt.Endpoint, "/1.0") {
		return fmt.Errorf("ovh simulator: endpoint %q: expected a URL that ends in /1.0", opt.Endpoint)
	}
	if opt.Delay == nil {
		opt.Delay = Realistic
	}
	if opt.Deliver == nil {
		opt.Deliver = delivered
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Close stops what runs and waits for it. Machines are left as they are.
func (o *OVH) Close() {
	o.stop()
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.work.Wait()
}

// spawn runs f unless the account is closed; o.mu is held. What is not run now is run by the next lab.
func (o *OVH) spawn(f func()) {
	if !o.closed {
		o.work.Go(f)
	}
}

// Handler serves the API; its routes begin with /1.0, and with /v1, which is the same.
func (o *OVH) Handler() http.Handler { return http.HandlerFunc(o.serve) }

// Servers lists the servers, oldest first, as the lab's operator sees them.
func (o *OVH) Servers() []machine.Info {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []machine.Info
	for _, s := range o.state.servers() {
		out = append(out, o.info(s))
	}
	return out
}

// Orders is how many orders are in the books, paid and delivered or not.
func (o *OVH) Orders() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.state.Shop.Orders)
}

// SetSkew puts the provider's clock ahead by d; negative is behind.
func (o *OVH) SetSkew(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.skew = d
}

// now is the provider's clock.
func (o *OVH) now() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.clock()
}

// clock is now for those who hold o.mu.
func (o *OVH) clock() time.Time { return o.opt.Now().Add(o.skew).UTC() }

// Delete removes every machine and everything known of the account. For taking the lab down.
func (o *OVH) Delete(ctx context.Context) error {
	o.Close()
	var errs []error
	for _, i := range o.Servers() {
		if i.Machine != nil {
			errs = append(errs, i.Machine.Delete(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete machines: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = newState(o.opt.StatePath)
	o.state.Shop.Bind(o.shopping())
	return o.state.save()
}
