// Package stack keeps the declarative objects of a fleet at its provider: SSH key, firewall, private networks, placement
// groups, servers, reverse DNS. Pulumi decides what differs and in which order to act; our own provider, served from this
// process over loopback, does it through provision/hetznercloud.
//
// It never installs or unlocks anything (provision/lifecycle does), never replaces a server, and never deletes one that
// [Options].AllowDelete does not name. A provider that can't be asked what is there is left as it is, and holds up nobody
// else's nodes: not to know is never read as "nothing is there". The API token stays in this process: neither Pulumi's configuration, nor its
// state, nor the environment of its CLI holds it. One server that fails does not stop the others; what failed is in
// [Result].Errors by node. A run that was killed is simply run again: creates are found by label, and locks and pending
// operations that the killed run left are cleared.
package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
)

// What a caller can act on.
var (
	ErrNoCLI         = errors.New("no pulumi CLI of a fitting version")
	ErrLocked        = errors.New("another run works on this stack")
	ErrDeleteRefused = errors.New("servers would be deleted")
	ErrImmutable     = errors.New("a server's type, location and image can't be changed in place")
	ErrSkipped       = errors.New("not attempted: something it needs failed")
)

// Secret is what the stack needs of a secret.
type Secret interface{ Reveal() []byte }

// Options say where the stack lives and with what it works.
type Options struct {
	Dir         string                       // .fleet/stack: state, Pulumi's home and its workspace
	Backend     string                       // Pulumi backend URL; default: a file backend in Dir
	Fleet       string                       // the fleet's name is the stack's name
	Passphrase  Secret                       // encrypts secrets in the state; random, kept by the vault
	Driver      *hetznercloud.Driver         // needed only where cloud servers are
	Dedicated   map[string]provider.Provider // the other providers, by name
	CLI         string                       // path of pulumi; default: FindCLI
	Unreachable map[string]error             // providers that are known not to answer, and why; they are not asked again
	AllowDelete []string                     // nodes whose servers may be deleted
	Parallel    int                          // default 10
	Log         *slog.Logger                 // default: discard
}

func (o Options) withDefaults(ctx context.Context) (Options, error) {
	var problems []error
	if o.Fleet == "" {
		problems = append(problems, errors.New("no fleet name"))
	}
	if o.Driver == nil && len(o.Dedicated) == 0 && len(o.Unreachable) == 0 {
		problems = append(problems, errors.New("no driver"))
	}
	if o.Passphrase == nil || len(o.Passphrase.Reveal()) == 0 {
		problems = append(problems, errors.New("no passphrase"))
	}
	if err := errors.Join(problems...); err != nil {
		return o, fmt.Errorf("stack options: %w", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("stack directory %q: %w", o.Dir, err)
	}
	o.Dir = dir
	if o.Parallel <= 0 {
		o.Parallel = 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CLI == "" {
		o.CLI, err = FindCLI(ctx)
	}
	return o, err
}

// ServerOutput is a server that exists.
type ServerOutput struct {
	ID    string
	Addr4 netip.Addr // invalid when it has none
	Addr6 netip.Addr // invalid when it has none
}

// Result is what exists after a run.
type Result struct {
	Servers map[string]ServerOutput // by node
	Errors  map[string]error        // by node; "" holds what concerns no single node
	Changes Changes                 // what was done
	Remains map[string][]string     // by node: what is left for a person to do at the provider
	// Unnamed, by node: its reverse DNS name could not be set. It serves without, and the next run tries again: some
	// providers take a name only once it resolves, which it does when the fleet's own DNS answers.
	Unnamed map[string]error
	// Unreachable, by provider: it could not say what is there. Nothing of it was changed, the state keeps what it knew,
	// and its nodes have this reason in Errors.
	Unreachable map[string]error
}

// Err joins everything that failed, or is nil.
func (r Result) Err() error {
	var all []error
	for _, node := range sortedKeys(r.Errors) {
		if node == "" {
			all = append(all, r.Errors[node])
			continue
		}
		all = append(all, fmt.Errorf("%s: %w", node, r.Errors[node]))
	}
	return errors.Join(all...)
}

// Change is one difference between what is wanted and what is.
type Change struct {
	Op     string   // create, update, replace, delete, vanished (it is gone at the provider and leaves the state)
	Kind   string   // Server, SSHKey, Firewall, Network, PlacementGroup, ReverseDNS
	Key    string   // "server.fsn-1"
	Node   string   // empty when it concerns no single node
	Fields []string // what differs, for updates
}

func (c Change) String() string {
	s := fmt.Sprintf("%s %s %s", c.Op, c.Kind, c.Key)
	if len(c.Fields) > 0 {
		s += fmt.Sprintf(" %v", c.Fields)
	}
	return s
}

// Changes are the differences, in the order in which they are dealt with; none means that nothing differs.
type Changes []Change

// Progress is told what happens to one object. It may be called from any goroutine, must not block.
type Progress func(Event)

// Event is one step of one object.
type Event struct {
	Node    string // empty when it concerns no single node
	Key     string
	Phase   string // creating, updating, deleting, done, failed
	Waiting string // what it waits for, in words
	Err     error  // with Phase failed
}
