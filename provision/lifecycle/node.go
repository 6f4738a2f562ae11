package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// fleetRun is what the nodes of one command share.
type fleetRun struct {
	Deps
	fleetKey vault.KeyPair
	rescueID ssh.Signer // logs in to rescue and initramfs
	systemID ssh.Signer // a certificate, logs in to systems
	userCA   string

	image func(context.Context) (Image, error) // made once, when the first node needs it
	pass  *passOn                              // content goes from node to node where it can

	mu     sync.Mutex                                            // progress events do not overlap
	listed map[string]func() (map[string]provider.Server, error) // by provider: its servers, by node
}

// node is the run of one node. It belongs to one goroutine.
type node struct {
	*fleetRun
	want   Want
	name   string
	keys   *vault.NodeKeys
	link   *link
	server *provider.Server // as last described; nil: describe again
	// unlisted is why the provider could not say which servers there are. That is no answer, and never read as "none".
	unlisted error
	op       Op
	before   Op // the last operation that was done
	wait     waitingFor
	tail     []string // the machine's last lines
	// entered: this run put the machine into rescue, so an unknown key on port 22 is expected once.
	entered bool
	origin  provider.Origin // of the rescue system's host keys, once this run entered it
	// rescueKey is pinned from the first login to rescue until the next restart.
	rescueKey ssh.PublicKey
	// opened: this run handed the sealed node its key, and its boot is not proven yet.
	opened   bool
	attempts map[Op]int
	changed  bool
	resets   int
}

type waitingFor struct {
	text  string
	since time.Time
}

func newFleetRun(d Deps) (*fleetRun, error) {
	if err := d.complete(); err != nil {
		return nil, err
	}
	f := &fleetRun{Deps: d}
	var err error
	if f.fleetKey, err = d.Keys.FleetKey(); err != nil {
		return nil, fmt.Errorf("fleet key: %w", err)
	}
	if f.rescueID, err = f.fleetKey.Signer(); err != nil {
		return nil, err
	}
	ca, err := d.Keys.UserCA()
	if err != nil {
		return nil, fmt.Errorf("user CA: %w", err)
	}
	f.userCA = ca.Public
	f.image = f.once(d.Image)
	f.pass = newPassOn(f)
	return f, f.certify()
}

// certificateLife covers the longest run under emulation; every command signs its own.
const certificateLife = 6 * time.Hour

func (f *fleetRun) certify() error {
	// The fleet key carries the certificate too: no further private key has to exist in memory.
	cert, err := f.Keys.SignOperator(f.rescueID.PublicKey(), f.Operator, certificateLife)
	if err != nil {
		return fmt.Errorf("operator certificate: %w", err)
	}
	f.systemID, err = ssh.NewCertSigner(cert, f.rescueID)
	return err
}

// once asks for the image when the first node needs it; an error is asked again.
func (f *fleetRun) once(ask func(context.Context) (Image, error)) func(context.Context) (Image, error) {
	var mu sync.Mutex
	var have *Image
	return func(ctx context.Context) (Image, error) {
		mu.Lock()
		defer mu.Unlock()
		if have != nil {
			return *have, nil
		}
		if ask == nil {
			return Image{}, fmt.Errorf("lifecycle: Deps.Image is missing")
		}
		i, err := ask(ctx)
		if err == nil {
			have = &i
		}
		return i, err
	}
}

func (f *fleetRun) node(n Node) *node {
	return &node{
		fleetRun: f, name: n.Name, attempts: map[Op]int{},
		want: Want{Node: n, Converge: f.Compiler != nil, Serve: f.Serving != nil, Pace: f.Pace},
	}
}

func (f *fleetRun) tell(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	f.Progress(e)
}

func (n *node) say(kind, format string, args ...any) {
	n.tell(Event{Node: n.name, Kind: kind, Op: n.op, Attempt: n.attempts[n.op], Text: fmt.Sprintf(format, args...)})
}

// waiting says what is waited for; the same text again keeps its beginning.
func (n *node) waiting(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n.wait.text == text {
		return
	}
	n.wait = waitingFor{text, time.Now()}
	n.tell(Event{Node: n.name, Kind: EventWait, Op: n.op, Attempt: n.attempts[n.op], Text: text, Since: n.wait.since})
}

// hear passes a machine's events on.
func (n *node) hear(e spec.Event) {
	switch e.Kind {
	case spec.KindProgress:
		n.tell(Event{Node: n.name, Kind: EventProgress, Op: n.op, Text: e.Step, Done: e.Done, Total: e.Total})
	case spec.KindStep:
		if e.Status != "skipped" {
			n.waiting("%s", stepText(e))
		}
	case spec.KindLog, spec.KindDiff:
		n.say(EventLog, "%s", e.Step+" "+e.Text)
	}
}

func stepText(e spec.Event) string {
	if e.Text != "" {
		return e.Step + ": " + e.Text
	}
	return e.Step
}

func (n *node) state() (vault.NodeState, error) {
	s, err := n.Memory.NodeState(n.name)
	if err != nil {
		return s, fmt.Errorf("read what is known of %s: %w", n.name, err)
	}
	return s, nil
}

func (n *node) remember(s vault.NodeState) error {
	if err := n.Memory.SetNodeState(n.name, s); err != nil {
		return fmt.Errorf("write down what was learnt of %s: %w", n.name, err)
	}
	return nil
}

// secrets reads the node's keys once a run.
func (n *node) secrets() (*vault.NodeKeys, error) {
	if n.keys == nil {
		k, err := n.Keys.Node(n.name)
		if err != nil {
			return nil, err
		}
		n.keys = k
	}
	return n.keys, nil
}

// systemPins are the host keys the booted system may show: the one written down, and while sealing may have been cut
// short also the lasting one. A sealed node's keys are read from what is written down, without opening its secrets:
// decrypting them was a tenth of the CPU of a run that changes nothing.
func (n *node) systemPins(s vault.NodeState) ([]ssh.PublicKey, error) {
	return n.pins(s.SystemHostKey, s.Sealed, func(k *vault.NodeKeys) string { return k.SystemHostKey.Public })
}

func (n *node) initramfsPins(s vault.NodeState) ([]ssh.PublicKey, error) {
	return n.pins(s.InitramfsHostKey, s.Sealed, func(k *vault.NodeKeys) string { return k.InitramfsHostKey.Public })
}

// pins gives the lasting key first.
func (n *node) pins(written string, sealed bool, lasting func(*vault.NodeKeys) string) ([]ssh.PublicKey, error) {
	lines := []string{written}
	if !sealed {
		k, err := n.secrets()
		if err != nil {
			return nil, err
		}
		lines = []string{lasting(k), written}
	}
	var out []ssh.PublicKey
	for _, l := range lines {
		if l == "" {
			continue
		}
		k, err := remote.ParseKey(l)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

// describe asks the provider unless the last answer still holds.
func (n *node) describe(ctx context.Context) (provider.Server, bool, error) {
	if n.unlisted != nil {
		return provider.Server{}, false, n.unlisted
	}
	if n.server != nil {
		return *n.server, true, nil
	}
	p, err := n.provider()
	if err != nil {
		return provider.Server{}, false, err
	}
	s, found, err := p.Describe(n.listening(ctx), n.Fleet, n.name)
	if err == nil && found {
		n.server = &s
	}
	return s, found, err
}

func (n *node) provider() (provider.Provider, error) {
	return n.Provider(n.want.Node.Machine.Provider)
}

func (n *node) listening(ctx context.Context) context.Context {
	return provider.WithWaiting(ctx, func(text string) { n.waiting("%s", text) })
}
