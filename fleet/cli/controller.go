package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"popfleet/fleet/controller"
	"popfleet/fleet/controller/policy"
	"popfleet/internal/mtls"
	"popfleet/inventory"
	"popfleet/inventory/vault"
)

// lookEvery is the time between two looks at a silent node, at real pace: a locked node waits at most this much longer.
const lookEvery = 500 * time.Millisecond

func (a *app) controllerCommand() *cobra.Command {
	var name, listen string
	c := &cobra.Command{
		Use:   "controller",
		Short: "Run the controller: hear the agents, unlock nodes that rebooted",
		Long:  "controller runs until it is stopped. It needs the vault's passphrase, because it hands nodes their disk keys. With the providers' credentials in its environment it asks them what happened to a machine before it sends a key.",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return a.runController(c.Context(), name, listen) },
	}
	c.Flags().StringVar(&name, "name", "", "which `controller` of the fleet file this is; default: the only one")
	c.Flags().StringVar(&listen, "listen", "", "`address` to listen on; default: the port of the fleet file, on every address")
	return c
}

func (a *app) runController(ctx context.Context, name, listen string) (err error) {
	s, err := a.open(ctx, "controller", nil, needs{})
	if err != nil {
		return err
	}
	defer func() { s.close(context.WithoutCancel(ctx), codeOf(err)) }()
	me, err := s.whichController(name)
	if err != nil {
		return err
	}
	if listen == "" {
		listen = fmt.Sprintf(":%d", me.Address.Port())
	}
	d, err := s.deps(nil)
	if err != nil {
		return err
	}
	deps := controller.Deps{
		Fleet:     a.loadFleet,
		Identity:  func() (*mtls.Identity, error) { return identity(s.vault, "controller", me.Name) },
		Lifecycle: d,
		Name:      "controller " + me.Name,
		Activity:  s.activity(),
		Log:       slog.New(slog.NewJSONHandler(a.env.Stderr, nil)),
		Listening: func(at net.Addr) { a.out.say("controller %s of fleet %s listens on %s", me.Name, s.fleet.Name, at) },
	}
	err = controller.Run(ctx, controller.Config{Listen: listen, Dir: a.path(".fleet"), Poll: lookEvery,
		RecentlyAlive: s.fleet.Unlock.RecentlyAlive, CrossCheck: policy.CrossCheckRule(s.fleet.Unlock.CrossCheck)}, deps)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w\n  hint: does a controller run already? --listen takes another address; the agents dial %s", err, me.Address)
	}
	if err == nil && ctx.Err() != nil {
		a.out.say("controller stopped")
	}
	return err
}

func (s *session) whichController(name string) (inventory.Controller, error) {
	var names []string
	for _, c := range s.fleet.Controllers {
		if c.Name == name || (name == "" && len(s.fleet.Controllers) == 1) {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return inventory.Controller{}, fmt.Errorf("which controller is this? expected --name with one of %s", strings.Join(names, ", "))
}

// identity is a certificate out of the vault, for links of the operator's side.
func identity(v *vault.Vault, service, name string) (*mtls.Identity, error) {
	leaf, err := v.Leaf(vault.LeafSpec{Service: service, Node: name})
	if err != nil {
		return nil, err
	}
	cert, err := leaf.TLS()
	if err != nil {
		return nil, err
	}
	authority, err := v.CACertPEM()
	if err != nil {
		return nil, err
	}
	return mtls.Fixed(cert, authority)
}
