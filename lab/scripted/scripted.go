// Package scripted makes machines that are played inside this process: they boot, speak real SSH, burn unlock tries,
// and act as fleet-agent does by docs/protocols/exchange.md, with delays and faults that a test sets. Nothing is
// really encrypted or installed; what a real node would check is checked. Each machine keeps a ledger of what was done
// to it and of what reached it, for tests to judge. Messages are read by types of its own, so that one misreading of
// the protocol can't hide on both sides.
package scripted

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

// Timing is how long things take. Zero values take no time.
type Timing struct {
	RTT        time.Duration // of every connection, on top of what the loopback costs
	BootRescue time.Duration // power-on to rescue's SSH
	BootDisk   time.Duration // power-on to dropbear, or to a factory image's SSH
	Unlock     time.Duration // key derivation
	BootSystem time.Duration // unlocked to the system's SSH
	Step       time.Duration // one step of an install, a seal or an apply
	Panic      time.Duration // from giving up on unlocking to the reboot; 0 is never
}

// Options is what a Backend needs; the zero value is usable.
type Options struct {
	Timing Timing
	Faults *faults.Set
	Log    *slog.Logger
}

// Backend makes scripted machines and owns all that runs in them.
type Backend struct {
	opt  Options
	life context.Context // ends with Close; bounds everything inside the machines
	stop context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex
	machines map[string]*Machine // guarded by mu; deleted ones stay, for their ledgers
	order    []string            // guarded by mu
	content  map[string][]byte   // guarded by mu: what machines keep, once each
}

// New returns an empty backend. Close ends it.
func New(ctx context.Context, opt Options) *Backend {
	if opt.Faults == nil {
		opt.Faults = &faults.Set{}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{opt: opt, machines: map[string]*Machine{}}
	b.life, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	return b
}

// Close cuts every connection, stops every machine and waits for all of it.
func (b *Backend) Close() {
	b.stop()
	for _, m := range b.Machines() {
		m.powerCut()
	}
	b.work.Wait()
}

// Kind says what these machines are.
func (b *Backend) Kind() string { return "scripted" }

// Create makes a machine that is switched off.
func (b *Backend) Create(_ context.Context, c machine.Config) (machine.Machine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.machines[c.Name]; old != nil {
		return nil, errors.New("machine " + c.Name + " exists")
	}
	m := newMachine(b, c)
	b.machines[c.Name] = m
	b.order = append(b.order, c.Name)
	return m, nil
}

// Reattach finds a machine of this process; scripted machines do not outlive it.
func (b *Backend) Reattach(_ context.Context, c machine.Config) (machine.Machine, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.machines[c.Name]
	if m == nil || m.isDeleted() {
		return nil, false, nil
	}
	m.adopt(c)
	return m, true, nil
}

// Machines lists all machines ever made, oldest first.
func (b *Backend) Machines() []*Machine {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*Machine
	for _, n := range b.order {
		out = append(out, b.machines[n])
	}
	return out
}

// Labelled finds the newest machine with this label that was not deleted, else the newest with this label.
func (b *Backend) Labelled(label string) (*Machine, bool) {
	var found *Machine
	for _, m := range b.Machines() {
		if m.Label() == label && (found == nil || found.isDeleted() || !m.isDeleted()) {
			found = m
		}
	}
	return found, found != nil
}

// spawn runs f in a goroutine that Close waits for.
func (b *Backend) spawn(f func()) {
	b.work.Add(1)
	go func() { defer b.work.Done(); f() }()
}

// pause waits, and says false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
