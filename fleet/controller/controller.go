// Package controller hears the fleet's agents and unlocks its nodes.
//
// It takes their reports over mTLS, keeps the last one of each node, answers `fleet status`, and looks at every node
// that has fallen silent: one that waits locked in its initramfs, with the pinned host key, gets its key when the
// policy allows it (package policy: an expected reboot, or a node that was alive shortly before, of which its provider
// tells nothing foreign); every other one is held, and the status says why and which command goes on. The unlocking
// itself is provision/lifecycle's, the same as the command's, and so is the proof of every boot: what the node booted from
// is compared with what was recorded, and then its key is exchanged.
//
// It needs no provider's API, and says so in its verdicts when it has none. It never unlocks a node that is not sealed (that is `fleet up`'s), never sends a key a
// second time after the machine called it wrong, and never sends one to a host key it did not pin. Nothing depends on
// it: without it, agents spool their reports and `fleet unlock` does by hand what it does by itself. What a crash loses
// is the last second of reports; decisions and alarms about keys are on disk before they act.
//
//	err := controller.Run(ctx, controller.Config{Listen: ":8440", Dir: ".fleet"}, controller.Deps{…})
//	status, err := client.New(dialer, identity, "demo", "198.18.0.1:8440").Status(ctx)
package controller

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"popfleet/fleet/controller/policy"
	"popfleet/internal/mtls"
	"popfleet/inventory"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// Config is what may be said of a controller; zero values have defaults.
type Config struct {
	Listen string // address of the HTTPS server; default ":8440"
	Dir    string // the operator's .fleet folder: controller.db and the unlock leases; required
	// Interval is how often agents are asked to report; default 10s.
	Interval time.Duration
	// RecentlyAlive is how long before it fell silent a node must have been heard to be unlocked unasked; default 15m.
	RecentlyAlive time.Duration
	// UnlocksPerHour bounds a node that restarts again and again; default 6.
	UnlocksPerHour int
	// CrossCheck says what it means that a node's provider can't be asked; default policy.WhenPossible.
	CrossCheck policy.CrossCheckRule
	// Poll is the time between two looks at a silent node, at the pace of a real machine; default 2s.
	Poll time.Duration
}

func (c Config) complete() Config {
	if c.Listen == "" {
		c.Listen = ":8440"
	}
	if c.Interval <= 0 {
		c.Interval = 10 * time.Second
	}
	if c.RecentlyAlive <= 0 {
		c.RecentlyAlive = 15 * time.Minute
	}
	if c.UnlocksPerHour <= 0 {
		c.UnlocksPerHour = 6
	}
	if c.Poll <= 0 {
		c.Poll = 2 * time.Second
	}
	return c
}

// Deps is what a controller works with.
type Deps struct {
	// Fleet reads the fleet file; asked again every ten seconds, because nodes appear while the controller runs. When it
	// fails later on, the last good answer stays.
	Fleet func() (*inventory.Fleet, error)
	// Identity is the controller's certificate (popfleet://<fleet>/controller/<name>); asked again every hour, so that
	// it may be renewed.
	Identity func() (*mtls.Identity, error)
	// Lifecycle is what unlocking needs: Fleet, Operator, Keys, Memory, Boots, Rotation, Journal, Agent, Dial, Pace, Ports.
	// Provider, Run, Allow, Lease, Audit and Progress are the controller's own.
	Lifecycle lifecycle.Deps
	// Name is who decides, in the audit log; default "controller".
	Name string
	// Activity asks a node's provider; nil: nobody here has the credentials, and the verdicts say so.
	Activity Activity
	Log      *slog.Logger
	// Listening hears the address once connections are accepted; may be nil.
	Listening func(net.Addr)

	// Unlock, Prove and Look are lifecycle.Unlock, lifecycle.Prove and remote.Look unless a test says otherwise.
	Unlock func(context.Context, lifecycle.Deps, lifecycle.Node) (lifecycle.Result, error)
	Prove  func(context.Context, lifecycle.Deps, lifecycle.Node) (lifecycle.Result, error)
	Look   func(ctx context.Context, addr string) remote.Door
}

func (d *Deps) complete() error {
	var missing []error
	l := &d.Lifecycle
	for name, given := range map[string]bool{"Fleet": d.Fleet != nil, "Identity": d.Identity != nil, "Lifecycle.Fleet": l.Fleet != "",
		"Lifecycle.Keys": l.Keys != nil, "Lifecycle.Memory": l.Memory != nil, "Lifecycle.Journal": l.Journal != nil, "Lifecycle.Dial": l.Dial != nil} {
		if !given {
			missing = append(missing, errors.New("controller: Deps."+name+" is missing"))
		}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Name == "" {
		d.Name = "controller"
	}
	if d.Prove == nil {
		d.Prove = lifecycle.Prove
	}
	if d.Unlock == nil {
		d.Unlock = lifecycle.Unlock
	}
	if d.Look == nil {
		d.Look = func(ctx context.Context, addr string) remote.Door { return remote.Look(ctx, l.Dial, addr) }
	}
	if l.Ports == (lifecycle.Ports{}) {
		l.Ports = lifecycle.Ports{SSH: 22, Unlock: 2222}
	}
	return errors.Join(missing...)
}

// Run serves until ctx ends. It returns nil then, and an error when it can't serve at all.
func Run(ctx context.Context, cfg Config, d Deps) error {
	cfg = cfg.complete()
	if cfg.Dir == "" {
		return errors.New("controller: Config.Dir is missing")
	}
	if err := d.complete(); err != nil {
		return err
	}
	store, err := openStore(filepath.Join(cfg.Dir, "controller.db"))
	if err != nil {
		return err
	}
	defer store.close()
	b, err := newBoard(ctx, cfg, d, store)
	if err != nil {
		return err
	}
	identity, err := newRotating(d.Identity)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("controller: listen: %w", err)
	}
	if d.Listening != nil {
		d.Listening(listener.Addr())
	}
	d.Log.Info("controller listens", "address", listener.Addr().String(), "fleet", d.Lifecycle.Fleet)
	err = runAll(ctx,
		func(ctx context.Context) error { return serve(ctx, listener, b, identity) },
		func(ctx context.Context) error { return newWatcher(b, newRunID()).run(ctx) },
		b.keep,
	)
	return errors.Join(err, b.flush(ctx))
}

// runAll runs parts until one fails or ctx ends, and waits for all.
func runAll(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() {
			defer cancel()
			errs[i] = part(ctx)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func newRunID() string {
	var b [4]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return "controller-" + time.Now().UTC().Format("20060102t150405") + "-" + hex.EncodeToString(b[:])
}
