// Package provider is what a node's life asks of whoever rents out its machine. Hetzner Cloud, Hetzner Robot and OVH
// differ in everything but this: a machine is described, started into rescue, started from its disk, restarted, named,
// watched and let go. One suite (provider/conformance) holds all drivers to it.
//
// It holds values and the interface, no code that talks to anybody.
package provider

import (
	"context"
	"net/netip"
	"time"
)

// Provider is one provider's power over a fleet's machines. Every method returns when the act has begun, retries what
// the provider may be asked again, never starts twice what must not happen twice, and has deadlines of its own;
// [Waiting] hears what it waits for. Safe for concurrent use. Errors are [Error].
type Provider interface {
	// Servers finds the fleet's servers by node name, in as few calls as the API allows. Those on their way in or out
	// may be missing.
	Servers(ctx context.Context, fleet string) (map[string]Server, error)
	// Describe finds one node's server; false means that there is none.
	Describe(ctx context.Context, fleet, node string) (Server, bool, error)
	// Ensure returns the server that w describes: found, taken over, or rented where renting is the create of a cloud
	// server. It is safe to repeat after a lost reply. A dedicated machine is never ordered here.
	Ensure(ctx context.Context, w Wanted) (Server, error)
	// EnterRescue makes the next start a rescue system that lets r.Key in, starts or restarts the machine, and returns
	// when it has begun, or, where the provider publishes the rescue system's host keys, when they are known. Whether
	// rescue came up and not the disk is for the caller to see on the machine.
	EnterRescue(ctx context.Context, id string, r Restart) (Rescue, error)
	// BootDisk takes back what EnterRescue set and starts or restarts the machine from its disk.
	BootDisk(ctx context.Context, id string, r Restart) error
	// Reset restarts the machine whatever its system does: r.Try says how hard.
	Reset(ctx context.Context, id string, r Restart) error
	// SetReverse sets the reverse DNS name of one of the machine's addresses; "" gives the default back.
	SetReverse(ctx context.Context, id string, addr netip.Addr, name string) error
	// Reverse reads that name; "" while it is the provider's default.
	Reverse(ctx context.Context, id string, addr netip.Addr) (name string, err error)
	// Activity lists what happened to the machine since then, and what is armed to happen at its next start, oldest
	// first: the unlock policy compares it with what we did.
	Activity(ctx context.Context, id string, since time.Time) ([]Activity, error)
	// Release lets the machine go, after its key slots were wiped. A cloud server is deleted; the contract of a
	// dedicated one is never cancelled, and steps say what is left for a person to do.
	Release(ctx context.Context, id string) (steps []string, err error)
}

// Names of the providers, as in the fleet file.
const (
	HetznerCloud = "hetznercloud"
	HetznerRobot = "hetznerrobot"
	OVH          = "ovh"
)

// Wanted is a server as the fleet file wants it.
type Wanted struct {
	Fleet, Node string
	Server      string  // a machine that exists: Robot's number, OVH's service name; "" where servers are created
	Places      []Place // where it may be rented, in order of preference; the first that has room is taken
	Image       string  // what the provider puts on first
}

// Place is a server type at a location.
type Place struct {
	Type     string `json:"type"`
	Location string `json:"location"`
}

// Server is a rented machine as its provider describes it now.
type Server struct {
	ID            string
	Node          string // "" when the provider does not know
	Name          string
	Type          string
	Location      string
	Addr4         netip.Addr
	Addr6         netip.Addr
	Off           bool
	RescueEnabled bool
	Trouble       string // why the provider would not let us use it now (locked, expired, intervention), in its words
}

// SSHKey is the public key that a rescue system lets in.
type SSHKey struct {
	Name   string // what it is called at the provider when it has to be uploaded
	Public string // one line of authorized_keys
}

// Restart says how a machine is started anew.
type Restart struct {
	Key SSHKey // EnterRescue only
	// Ask asks the running system to restart, the gentlest way; nil when nobody can. A driver that uses it does not
	// press the button unless nothing came of it.
	Ask func(ctx context.Context) error
	// Try counts the restarts of this machine that had no effect: 0 is the gentlest way the provider has, higher is
	// harder. What needs a person at the provider is never done.
	Try int
}

// Origin says how a rescue system's host keys became known.
type Origin string

// The origins, best first.
const (
	FromAPI  Origin = "api"     // the provider publishes them for this very boot
	Planted  Origin = "planted" // we made the key and gave it to the machine
	FirstUse Origin = "tofu"    // nobody can say: the first key seen is taken, aloud
)

// Rescue is a rescue system that is coming up.
type Rescue struct {
	Origin       Origin
	Fingerprints []string  // SHA256:…, of every host key it may show; none with FirstUse
	Booted       time.Time // as the provider says; zero when it does not
}

// Activity is one thing that a provider says of a machine.
type Activity struct {
	At    time.Time // zero for a state that holds now
	Ref   string    // the provider's id of it; "" for a state
	What  string    // in the provider's words: enable_rescue, reinstallServer, bootId=rescue
	Risky bool      // it could have put a foreign system in front of the disk, or could at the next start
}

type waitingKey struct{}

// WithWaiting returns a context whose calls report to f what they wait for, in words for people. f may be called from
// any goroutine and must not block.
func WithWaiting(ctx context.Context, f func(text string)) context.Context {
	return context.WithValue(ctx, waitingKey{}, f)
}

// Waiting is the function that hears what is waited for; never nil.
func Waiting(ctx context.Context) func(text string) {
	if f, ok := ctx.Value(waitingKey{}).(func(string)); ok && f != nil {
		return f
	}
	return func(string) {}
}
