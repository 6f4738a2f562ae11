package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
	"popfleet/provision/reshare"
)

func (a *app) checkCommand() *cobra.Command {
	c := &cobra.Command{Use: "check", Short: "Look whether nodes would take what is about to come"}
	c.AddCommand(&cobra.Command{
		Use:   "reboot [NODE|POP…]",
		Short: "Would these nodes come back from a reboot, and open with the vault's key?",
		Long: `check reboot follows a boot on each node, from the boot sectors to the key slot, and changes nothing. A node that
would not come back refuses to reboot until the check passes. Exit code 3: at least one node would not, or could not be asked.`,
		RunE: func(c *cobra.Command, args []string) error { return a.runCheckReboot(c.Context(), args) },
	})
	return c
}

// Deadlines of one node's check at the pace of a real machine. The check unpacks an initramfs and stretches a key.
const (
	checkConnectLimit = 30 * time.Second
	checkLimit        = 2 * time.Minute
)

// checked is one node's answer.
type checked struct {
	node   string
	result spec.BootCheck
	err    error
}

func (a *app) runCheckReboot(ctx context.Context, targets []string) (err error) {
	s, err := a.open(ctx, "check reboot", targets, needs{})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	nodes, err := s.nodes(targets)
	if err != nil {
		return err
	}
	ask, err := s.bootAsker()
	if err != nil {
		return err
	}
	var bad []string
	for _, c := range ask.all(ctx, nodes) {
		a.showChecked(c)
		if c.err != nil || !c.result.OK() {
			bad = append(bad, c.node)
		}
	}
	if len(bad) > 0 {
		return exit(CodePartial, fmt.Errorf("%d of %d node(s) would not come back, or could not be asked: %s\n  hint: what to do is said above; then `%s`",
			len(bad), len(nodes), strings.Join(bad, ", "), a.again("check", append([]string{"reboot"}, bad...)...)))
	}
	return nil
}

func (a *app) showChecked(c checked) {
	if c.err != nil {
		a.out.data("%s %s could not be asked: %v\n", a.out.paint(red, "✗"), c.node, c.err)
		a.out.event("boot_check", c.node, map[string]any{"error": c.err.Error()})
		return
	}
	if c.result.OK() {
		a.out.data("%s %s would come back, with kernel %s\n", a.out.paint(green, "✓"), c.node, c.result.Kernel)
	} else {
		a.out.data("%s %s would not come back\n", a.out.paint(red, "✗"), c.node)
	}
	for _, p := range c.result.Checks {
		mark, color := "ok  ", dim
		switch {
		case !p.OK:
			mark, color = "FAIL", red
		case p.Warn:
			mark, color = "warn", yellow
		}
		a.out.data("    %s %-16s %s\n", a.out.paint(color, mark), p.Name, p.Why)
		if p.Do != "" {
			a.out.data("                          → %s\n", p.Do)
		}
	}
	a.out.event("boot_check", c.node, c.result)
}

// bootAsker asks nodes over links pinned to their system host keys.
type bootAsker struct {
	s     *session
	agent remote.Agent
	id    ssh.Signer
	dial  dial.Dialer
}

func (s *session) bootAsker() (*bootAsker, error) {
	d, err := s.deps(nil)
	if err != nil {
		return nil, err
	}
	id, err := operatorSigner(s.vault, s.pace.Of(checkConnectLimit+checkLimit)+sshCertificateLife)
	if err != nil {
		return nil, err
	}
	return &bootAsker{s: s, agent: d.Agent, id: id, dial: d.Dial}, nil
}

// all asks the nodes side by side and answers in their order.
func (b *bootAsker) all(ctx context.Context, nodes []lifecycle.Node) []checked {
	answers := make([]checked, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			answers[i].node = n.Name
			answers[i].result, answers[i].err = b.one(ctx, n.Name)
		})
	}
	wg.Wait()
	return answers
}

func (b *bootAsker) one(ctx context.Context, node string) (result spec.BootCheck, err error) {
	state, err := b.s.vault.NodeState(node)
	if err != nil {
		return result, err
	}
	if len(state.Addresses) == 0 {
		return result, fmt.Errorf("it has no known address yet\n  hint: `%s` shows where it stands", b.s.app.again("status"))
	}
	req, err := b.request(node, state)
	if err != nil {
		return result, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.s.pace.Of(checkConnectLimit+checkLimit))
	defer cancel()
	conn, err := b.connect(ctx, node, state)
	if err != nil {
		return result, err
	}
	defer conn.Close()
	x, err := conn.Exchange(ctx, b.agent, nil)
	if err != nil {
		return result, err
	}
	defer x.Close()
	err = x.Do(ctx, remote.Call{Op: spec.OpBootCheck, Spec: req, Result: &result})
	return result, err
}

// request holds everything that a next unlock will rely on.
func (b *bootAsker) request(node string, state vault.NodeState) (spec.BootCheckRequest, error) {
	keys, err := b.s.vault.Node(node)
	if err != nil {
		return spec.BootCheckRequest{}, err
	}
	req := spec.BootCheckRequest{Node: node, InitramfsHostKey: state.InitramfsHostKey, Key: keys.MachineKey.Reveal()}
	if !state.Sealed {
		req.Key = keys.InstallKey.Reveal()
	}
	fleet, err := b.s.vault.FleetKey()
	if err != nil {
		return req, err
	}
	req.AuthorizedKeys = []string{fleet.Public}
	req.Peers, err = reshare.Expected(b.s.vault, node)
	return req, err
}

// operatorSigner is a key of this call, certified for as long as the call may take.
func operatorSigner(v *vault.Vault, life time.Duration) (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	cert, err := v.SignOperator(key.PublicKey(), operatorName(), life)
	if err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, key)
}

func (b *bootAsker) connect(ctx context.Context, node string, state vault.NodeState) (*remote.Conn, error) {
	lines, err := systemPins(b.s.vault, node, state)
	if err != nil {
		return nil, err
	}
	var pins []ssh.PublicKey
	for _, l := range lines {
		k, err := remote.ParseKey(l)
		if err != nil {
			return nil, err
		}
		pins = append(pins, k)
	}
	if len(pins) == 0 {
		return nil, errors.New("no system host key is pinned")
	}
	return remote.Connect(ctx, b.dial, remote.Target{Addr: net.JoinHostPort(state.Addresses[0], "22"), Trust: remote.Pinned(pins...), Auth: b.id,
		Timeout: b.s.pace.Of(checkConnectLimit), Keepalive: remote.Keepalive{Every: 10 * time.Second, DeadAfter: b.s.pace.Of(30 * time.Second)}})
}
