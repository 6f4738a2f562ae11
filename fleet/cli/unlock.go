package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"popfleet/provision/lifecycle"
)

func (a *app) unlockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock NODE",
		Short: "Hand a locked node its key, whatever the controller thinks",
		Long:  "unlock needs no controller. It checks the pinned initramfs host key, sends the key once, and waits for the system.",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.runUnlock(c.Context(), args[0]) },
	}
}

func (a *app) runUnlock(ctx context.Context, name string) (err error) {
	s, err := a.open(ctx, "unlock", []string{name}, needs{})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	n, ok := s.fleet.Node(name)
	if !ok {
		return noSuchNode(s.fleet, name)
	}
	show := newProgress(a.out, a.env.Terminal)
	defer show.stop()
	d, err := s.deps(show.node)
	if err != nil {
		return err
	}
	r, err := lifecycle.Unlock(ctx, d, lifecycle.Node{Name: n.Name, PoP: n.PoP, Machine: n.Machine})
	show.stop()
	if err != nil {
		return err
	}
	if r.Err != nil {
		return r.Err
	}
	a.out.data("%s is %s after %s\n", name, r.Stage, r.Took.Round(time.Second))
	a.out.event("result", name, map[string]any{"stage": r.Stage, "changed": r.Changed, "took_sec": r.Took.Seconds()})
	return nil
}
