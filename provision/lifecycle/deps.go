package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
	"popfleet/internal/journal"
	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// Node is what is wanted of one node.
type Node struct {
	Name    string
	PoP     string
	Machine inventory.Machine
}

func portOf(s provider.Server, port int) string {
	a := s.Addr4
	if !a.IsValid() {
		a = s.Addr6
	}
	return net.JoinHostPort(a.String(), strconv.Itoa(port))
}

func addresses(s provider.Server) []string {
	var out []string
	for _, a := range []netip.Addr{s.Addr4, s.Addr6} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out
}

// Keys are the secrets an operation needs. *vault.Vault has these methods.
type Keys interface {
	Node(name string) (*vault.NodeKeys, error)
	FleetKey() (vault.KeyPair, error)
	UserCA() (vault.KeyPair, error)
	SignOperator(pub ssh.PublicKey, name string, ttl time.Duration) (*ssh.Certificate, error)
}

// Memory keeps what was learnt of a node. A write is on disk when it returns. *vault.Vault has these methods.
type Memory interface {
	NodeState(name string) (vault.NodeState, error)
	SetNodeState(name string, s vault.NodeState) error
}

// Journal writes before acts and after. When Begin fails, the act does not happen; End writes even when ctx is over.
// *journal.Journal has these methods.
type Journal interface {
	Begin(ctx context.Context, s journal.Step) (id int64, err error)
	End(ctx context.Context, id int64, o journal.Outcome) error
	Observe(ctx context.Context, run, node, stage string, evidence any) error
}

// Compiler says what a converged node looks like, and where the content its release names is found.
type Compiler interface {
	Compile(ctx context.Context, node string) (spec.Node, remote.Blobs, error)
}

// Image is the base system that an installation streams.
type Image struct {
	Blob  spec.Blob
	Blobs remote.Blobs
}

// Deps is everything a run works with.
type Deps struct {
	Fleet    string
	Operator string // who, in certificates
	Run      string // id of this command, in the journal
	Provider func(name string) (provider.Provider, error)
	Keys     Keys
	Memory   Memory
	Journal  Journal
	Compiler Compiler // nil: a sealed node is all that is wanted
	Image    func(ctx context.Context) (Image, error)
	Agent    remote.Agent
	Dial     dial.Dialer
	Pace     pace.Pace
	Log      *slog.Logger
	Progress func(Event) // may be called from several goroutines, never at the same time

	// Rent creates the server of an absent node; nil: an absent server is an error.
	Rent func(ctx context.Context, node string) error
	// Allow is the unlock policy, asked before a key is sent; nil allows.
	Allow func(ctx context.Context, n Node, o Observation) error
	// Lease keeps two unlockers apart; nil: this command's lock on the fleet is enough.
	Lease func(ctx context.Context, node string) (release func(), err error)
	// Boots keeps what nodes booted from; nil: boots are not proven, and keys not exchanged.
	Boots Boots
	// Rotation exchanges the machine key after every proven boot; nil: it stays.
	Rotation Rotation
	// Spend is told which generation of a node's peers' shares opened it: [SharePeers] replaces it. nil: it stays.
	// (*vault.Vault).SpendShares does it.
	Spend func(node string, generation int) (vault.ShareState, error)
	// Audit hears what became of keys and boots; nil: nobody does. It is called from a node's own goroutine.
	Audit func(ctx context.Context, node, verdict, why string, evidence any)
	// Serving proves from outside that a converged node serves; nil: healthy control sockets are enough.
	Serving func(ctx context.Context, n Node, s provider.Server) error

	Poll  time.Duration // between looks while waiting; default 2s
	Ports Ports
}

// Ports are where the machines' two SSH servers listen; the zero value is 22 and 2222.
type Ports struct{ SSH, Unlock int }

func (d *Deps) complete() error {
	var missing []error
	for name, given := range map[string]bool{"Fleet": d.Fleet != "", "Provider": d.Provider != nil, "Keys": d.Keys != nil,
		"Memory": d.Memory != nil, "Journal": d.Journal != nil, "Dial": d.Dial != nil} {
		if !given {
			missing = append(missing, errors.New("lifecycle: Deps."+name+" is missing"))
		}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Progress == nil {
		d.Progress = func(Event) {}
	}
	if d.Poll <= 0 {
		d.Poll = 2 * time.Second
	}
	if d.Ports == (Ports{}) {
		d.Ports = Ports{SSH: 22, Unlock: 2222}
	}
	if d.Operator == "" {
		d.Operator = "fleet"
	}
	return errors.Join(missing...)
}
