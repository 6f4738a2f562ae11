// Package robot simulates Hetzner Robot, the web service for dedicated servers, in front of machines of the lab: servers,
// addresses, boot configuration, resets, keys, reverse DNS and orders, with the provider's wrapping, form encoding, error
// bodies, request limits and lock-out, and with the faults of lab/faults.
//
// It hands out machines of a machine.Backend that are rented already, or are delivered when ordered, and decides what they
// boot. It knows nothing of what runs on them, and shares no code with the driver it is there to test. Shapes follow the
// documentation at robot.hetzner.com/doc/webservice; what that leaves open follows what was measured on real servers, and
// where both are silent it is strict. What it does not simulate answers 404 with an error body that says so. State is kept
// in one JSON file, so that a restarted lab finds its servers; without a path it lives in memory.
//
// A machine asks NextBoot and is held there for as long as firmware and network boot take. Close ends those waits, so it
// comes before the backend's own.
package robot

import (
	"cmp"
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

// Options is what a Robot needs. User, Password and Backend are required.
type Options struct {
	User, Password string
	Backend        machine.Backend
	Faults         *faults.Set
	// Machines are rented from the start. Stock is what orders are delivered from.
	Machines, Stock []Machine
	// StatePath is the state file; "" keeps everything in memory.
	StatePath string
	// Speed divides every delay: 1 is the provider's pace, 0 takes no time at all.
	Speed float64
	// Delay is how long something takes, in place of Realistic and Speed.
	Delay func(what string) time.Duration
	// LockOut is how long a source stays blocked after three wrong passwords; 0 is the provider's 10 minutes, divided by
	// Speed where there is one.
	LockOut time.Duration
	// RatePerHour overrides the request limits of single classes: see Limits for their names.
	RatePerHour map[string]int
	// OrderingOff answers every order call with 401, as for an account that did not activate ordering.
	OrderingOff bool
	// Keys are shared with other quick simulators; default: a pool of its own where Speed is 0, else every boot makes all
	// of its host keys.
	Keys *KeyPool
	Log  *slog.Logger
}

// Machine is one dedicated server: what the provider knows of it, and what it is built of.
type Machine struct {
	Number  int
	Name    string   // server_name
	Product string   // EX44; of a machine in stock: what has to be ordered to get it
	DC      string   // FSN1-DC14; "" is that
	Resets  []string // kinds of reset it has; nil is sw, hw, man
	WOL     bool     // can be woken over the network
	Keys    []string // whom the system on its disk lets in before anything was installed
	Off     bool     // starts switched off; the others run from the start, as rented servers do
	// Offer makes a machine in stock a market product with this id, at a monthly net price in cents.
	Offer, Cents int
	// Config is the machine itself. Name, ID and Label are filled in where empty; NextBoot and Stopped always.
	Config machine.Config
}

// Robot is one account at the simulated provider.
type Robot struct {
	opt    Options
	berlin *time.Location
	guard  *guard
	keys   *keyMaker

	life context.Context // ends with Close; bounds waits and what outlives a request
	stop context.CancelFunc
	work sync.WaitGroup // deliveries and restarts under way

	mu     sync.Mutex
	state  *state // guarded by mu
	closed bool   // guarded by mu: no more work is begun
}

// New opens the account: it loads the state file, takes back or makes the machines, and goes on with deliveries.
func New(ctx context.Context, opt Options) (*Robot, error) {
	if opt.User == "" || opt.Password == "" || opt.Backend == nil {
		return nil, errors.New("robot simulator: user, password and a backend are needed")
	}
	fill(&opt)
	opt.Faults.Know(allNames())
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		return nil, fmt.Errorf("robot simulator: %w", err)
	}
	st, err := loadState(opt.StatePath)
	if err != nil {
		return nil, err
	}
	r := &Robot{opt: opt, berlin: berlin, guard: newGuard(opt), keys: &keyMaker{opt.Keys}, state: st}
	r.life, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := r.populate(ctx); err != nil {
		r.Close()
		return nil, err
	}
	r.resumeOrders()
	return r, nil
}

func fill(opt *Options) {
	if opt.Faults == nil {
		opt.Faults = &faults.Set{}
	}
	if opt.Keys == nil && opt.Speed == 0 {
		opt.Keys = &KeyPool{}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
}

// populate gives every server of the account its machine. Servers that the options no longer name are forgotten.
func (r *Robot) populate(ctx context.Context) error {
	known := map[int]bool{}
	for _, m := range r.opt.Machines {
		if known[m.Number] || m.Number <= 0 {
			return fmt.Errorf("robot simulator: server number %d: not positive, or twice", m.Number)
		}
		known[m.Number] = true
		if err := r.rent(ctx, m); err != nil {
			return err
		}
	}
	for _, m := range r.opt.Stock {
		if r.state.Servers[m.Number] == nil || known[m.Number] {
			continue
		}
		known[m.Number] = true
		if err := r.rent(ctx, m); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.state.Servers {
		if !known[n] {
			delete(r.state.Servers, n)
		}
	}
	r.save()
	return nil
}

// rent makes m a server of the account, or finds what a former lab process left of it, and switches a new one on.
func (r *Robot) rent(ctx context.Context, m Machine) error {
	s := r.enrol(m)
	cfg := r.config(s)
	found, ok, err := r.opt.Backend.Reattach(ctx, cfg)
	if err == nil && !ok {
		found, err = r.opt.Backend.Create(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("server %d (%s): %w", m.Number, cfg.Label, err)
	}
	r.change(func() { s.machine = found })
	if s.Delivery == nil && (ok || m.Off) {
		return nil
	}
	return found.PowerOn(ctx)
}

// enrol finds or makes the books of a server.
func (r *Robot) enrol(m Machine) *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Servers[m.Number]
	if s == nil {
		s = &server{Number: m.Number, Name: m.Name, Status: ready, Rented: time.Now().UTC()}
		r.state.Servers[m.Number] = s
	}
	if s.wake == nil {
		s.hw, s.wake = complete(m), make(chan struct{})
	}
	return s
}

func complete(m Machine) Machine {
	m.DC = cmp.Or(m.DC, "FSN1-DC14")
	if m.Resets == nil {
		m.Resets = []string{"sw", "hw", "man"}
	}
	c := &m.Config
	c.ID = cmp.Or(c.ID, strconv.Itoa(m.Number))
	c.Name = cmp.Or(c.Name, "robot-"+c.ID)
	c.Label = cmp.Or(c.Label, m.Name, c.Name)
	return m
}

func (r *Robot) config(s *server) machine.Config {
	cfg, n := s.hw.Config, s.Number
	cfg.NextBoot = func() machine.Boot { return r.nextBoot(n) }
	cfg.Stopped = func() { r.stopped(n) }
	return cfg
}

// Close stops what runs and waits for it. Machines are left as they are; one that is about to boot boots its disk.
func (r *Robot) Close() {
	r.stop()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.work.Wait()
}

// spawn runs f unless the account is closed; r.mu is held.
func (r *Robot) spawn(f func()) {
	if !r.closed {
		r.work.Go(f)
	}
}

// Handler serves the web service; its routes begin at the root.
func (r *Robot) Handler() http.Handler { return http.HandlerFunc(r.serve) }

// Servers lists the servers by number.
func (r *Robot) Servers() []machine.Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []machine.Info
	for _, s := range r.state.servers() {
		out = append(out, s.info())
	}
	return out
}

// Orders is how many orders are in the books, delivered or not.
func (r *Robot) Orders() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.state.Transactions)
}

// Delete removes every machine and everything known of the account. For taking the lab down.
func (r *Robot) Delete(ctx context.Context) error {
	r.Close()
	var errs []error
	for _, i := range r.Servers() {
		if i.Machine != nil {
			errs = append(errs, i.Machine.Delete(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete machines: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = newState(r.opt.StatePath)
	return r.state.save()
}
