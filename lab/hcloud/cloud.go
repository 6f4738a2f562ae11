// Package hcloud simulates the Hetzner Cloud API in front of machines of the lab: the calls popfleet's driver and stack
// make, with their actions, locks, error bodies, pagination and rate limits, and with the faults of lab/faults.
//
// It rents machines from a machine.Backend and decides what they boot. It knows nothing of what runs on them, and
// shares no code with the driver it is there to test. Shapes follow the provider's API description; behaviour follows
// its documentation at docs.hetzner.cloud. What it does not simulate answers 404 with an error body that says so.
// State is kept in one JSON file, so that a restarted lab finds its servers; without a path it lives in memory.
package hcloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

// Options is what a Cloud needs. Backend and Token are required.
type Options struct {
	Token   string
	Backend machine.Backend
	Faults  *faults.Set
	// StatePath is the state file; "" keeps everything in memory.
	StatePath string
	// ActionTime is how long an action of this command runs; nil is Realistic.
	ActionTime func(command string) time.Duration
	// RatePerHour is the request budget, refilled evenly; 0 is the provider's 3600.
	RatePerHour int
	// Hardware overrides what a server type is built of, where the lab has less than the provider.
	Hardware func(ServerType) Hardware
	// RescueExpires is how long an enabled rescue waits for a boot; 0 is the provider's 60 minutes.
	RescueExpires time.Duration
	Log           *slog.Logger
}

// Hardware is what a machine is built of.
type Hardware struct {
	CPUs, MemoryMB, DiskGB, Disks int
	Firmware                      string
}

// Realistic are action times like the provider's.
func Realistic(command string) time.Duration {
	switch command {
	case "create_server":
		return 3 * time.Second
	case "start_server", "stop_server", "reset_server", "reboot_server", "shutdown_server":
		return 1500 * time.Millisecond
	case "enable_rescue", "disable_rescue", "delete_server":
		return time.Second
	}
	return 300 * time.Millisecond
}

// Every returns action times that are all d.
func Every(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

// Cloud is one project at the simulated provider.
type Cloud struct {
	opt  Options
	rate *rate

	life context.Context // ends with Close; bounds what actions do to machines after their request was answered
	stop context.CancelFunc
	work sync.WaitGroup // running actions

	mu     sync.Mutex
	state  *state // guarded by mu
	closed bool   // guarded by mu: no more work is begun
}

// New opens the cloud: it loads the state file, takes back the machines that still exist and goes on with the actions
// that were running.
func New(ctx context.Context, opt Options) (*Cloud, error) {
	if opt.Token == "" || opt.Backend == nil {
		return nil, errors.New("hcloud simulator: a token and a backend are needed")
	}
	fill(&opt)
	opt.Faults.Know(allNames())
	st, err := loadState(opt.StatePath)
	if err != nil {
		return nil, err
	}
	c := &Cloud{opt: opt, rate: newRate(opt.RatePerHour), state: st}
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.reattach(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func fill(opt *Options) {
	if opt.Faults == nil {
		opt.Faults = &faults.Set{}
	}
	if opt.ActionTime == nil {
		opt.ActionTime = Realistic
	}
	if opt.RatePerHour == 0 {
		opt.RatePerHour = 3600
	}
	if opt.Hardware == nil {
		opt.Hardware = ServerType.Hardware
	}
	if opt.RescueExpires == 0 {
		opt.RescueExpires = time.Hour
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
}

// Close stops what runs and waits for it. Machines are left as they are.
func (c *Cloud) Close() {
	c.stop()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.work.Wait()
}

// spawn runs f unless the cloud is closed; c.mu is held. What is not run now is run by the next lab.
func (c *Cloud) spawn(f func()) {
	if !c.closed {
		c.work.Go(f)
	}
}

// Handler serves the API; its routes begin with /v1.
func (c *Cloud) Handler() http.Handler {
	return http.HandlerFunc(c.serve)
}

// Servers lists the servers, oldest first.
func (c *Cloud) Servers() []machine.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []machine.Info
	for _, s := range c.state.servers() {
		out = append(out, c.info(s))
	}
	return out
}

func (c *Cloud) info(s *server) machine.Info {
	v4, v6 := c.addresses(s)
	return machine.Info{
		Provider: machine.HetznerCloud, ID: strconv.FormatInt(s.ID, 10), Name: s.Name, Status: s.Status,
		Rescue: s.rescueOn(time.Now()), Address: v4, Prefix6: v6, Machine: s.machine,
	}
}

// Delete removes every machine and every object, and the state file's content. For taking the lab down.
func (c *Cloud) Delete(ctx context.Context) error {
	c.Close()
	var errs []error
	for _, i := range c.Servers() {
		if i.Machine != nil {
			errs = append(errs, i.Machine.Delete(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete machines: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = newState(c.opt.StatePath)
	return c.state.save()
}
