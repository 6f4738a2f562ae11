package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
	"popfleet/inventory"
	"popfleet/inventory/vault"
)

// sshCertificateLife is how long the certificate of one `fleet ssh` opens doors; a session that is open stays open.
const sshCertificateLife = 5 * time.Minute

func (a *app) sshCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ssh NODE [COMMAND…]",
		Short: "Log in to a node with a short-lived certificate and its pinned host key",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.runSSH(c.Context(), args[0], args[1:]) },
	}
	c.Flags().SetInterspersed(false)
	c.AddCommand(&cobra.Command{Use: "dial ADDRESS", Hidden: true, Args: cobra.ExactArgs(1), Short: "Connect stdin and stdout to ADDRESS as fleet would",
		RunE: func(c *cobra.Command, args []string) error { return a.runDial(c.Context(), args[0]) }})
	return c
}

func (a *app) runSSH(ctx context.Context, node string, command []string) error {
	f, err := a.loadFleet()
	if err != nil {
		return err
	}
	if _, ok := f.Node(node); !ok {
		return noSuchNode(f, node)
	}
	v, err := a.openVault(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fleet-ssh-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args, err := a.sshArgs(v, node, dir)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ssh", append(args, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.env.Stdin, a.env.Stdout, a.env.Stderr
	var failed *exec.ExitError
	if err := cmd.Run(); errors.As(err, &failed) {
		return exit(failed.ExitCode(), nil)
	} else if err != nil {
		return fmt.Errorf("run ssh: %w", err)
	}
	return nil
}

// sshArgs writes key, certificate and known_hosts into dir, which lives as long as the session.
func (a *app) sshArgs(v *vault.Vault, node, dir string) ([]string, error) {
	state, err := v.NodeState(node)
	if err != nil {
		return nil, err
	}
	if len(state.Addresses) == 0 {
		return nil, fmt.Errorf("%s has no known address yet\n  hint: `%s` shows where it stands", node, a.again("status"))
	}
	pins, err := systemPins(v, node, state)
	if err != nil {
		return nil, err
	}
	address := state.Addresses[0]
	var known strings.Builder
	for _, pin := range pins {
		fmt.Fprintf(&known, "%s %s\n", address, pin)
	}
	if err := writeCredentials(v, dir); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(known.String()), 0o600); err != nil {
		return nil, err
	}
	args := []string{"-F", "none", "-l", "root",
		"-o", "IdentitiesOnly=yes", "-i", filepath.Join(dir, "key"),
		"-o", "CertificateFile=" + filepath.Join(dir, "key-cert.pub"),
		"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlgorithms=ssh-ed25519", "-o", "LogLevel=ERROR",
		"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"), "-o", "GlobalKnownHostsFile=none",
		"-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"}
	if a.env.Getenv(dial.EnvProxy) != "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		args = append(args, "-o", fmt.Sprintf("ProxyCommand=%q ssh dial %%h:%%p", self))
	}
	return append(args, address), nil
}

// systemPins are the host keys the booted system may show: the lasting one once sealed, before that either, since a
// seal that was cut off may have come through.
func systemPins(v *vault.Vault, node string, state vault.NodeState) ([]string, error) {
	keys, err := v.Node(node)
	if err != nil {
		return nil, err
	}
	pins := []string{keys.SystemHostKey.Public}
	if !state.Sealed && state.SystemHostKey != "" {
		pins = append(pins, state.SystemHostKey)
	}
	return pins, nil
}

func writeCredentials(v *vault.Vault, dir string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "fleet ssh")
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	cert, err := v.SignOperator(key, operatorName(), sshCertificateLife)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "key-cert.pub"), ssh.MarshalAuthorizedKey(cert), 0o600)
}

func (a *app) runDial(ctx context.Context, address string) error {
	d, err := a.dialer()
	if err != nil {
		return err
	}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	defer c.Close()
	go func() {
		_, _ = io.Copy(c, a.env.Stdin) // what ends it also ends the other direction
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	// The remote side ends the session; ssh closes our stdin by ending us.
	if _, err := io.Copy(a.env.Stdout, c); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func noSuchNode(f *inventory.Fleet, name string) error {
	var names []string
	for _, n := range f.Resolved() {
		names = append(names, n.Name)
	}
	return fmt.Errorf("no node %q in fleet.yaml; it has %s", name, strings.Join(names, ", "))
}
