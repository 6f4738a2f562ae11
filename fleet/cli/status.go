package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"popfleet/fleet/controller"
	"popfleet/fleet/controller/client"
	"popfleet/fleet/statusview"
	"popfleet/inventory"
)

func (a *app) statusCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the controller knows: nodes, disks, services, links",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return a.runStatus(c.Context(), wait) },
	}
	c.Flags().DurationVar(&wait, "wait", 0, "ask again until every node reports healthy services and hears every other, at most for this `long`")
	return c
}

func (a *app) runStatus(ctx context.Context, wait time.Duration) error {
	f, err := a.loadFleet()
	if err != nil {
		return err
	}
	v, err := a.openVault(ctx)
	if err != nil {
		return err
	}
	d, err := a.dialer()
	if err != nil {
		return err
	}
	id, err := identity(v, "operator", operatorName())
	if err != nil {
		return err
	}
	var clients []asker
	for _, c := range f.Controllers {
		clients = append(clients, asker{c, client.New(d, id, f.Name, c.Address.String())})
	}
	status, err := a.awaitStatus(ctx, clients, wait)
	if err != nil {
		return err
	}
	a.out.event("status", "", status)
	if a.json {
		return nil
	}
	return statusview.Render(a.env.Stdout, status, statusview.Options{Width: a.env.Width, Color: a.out.color})
}

type asker struct {
	inventory.Controller
	client *client.Client
}

// awaitStatus asks until nothing is missing, or wait is over; the last answer is given even then.
func (a *app) awaitStatus(ctx context.Context, clients []asker, wait time.Duration) (controller.Status, error) {
	deadline := time.Now().Add(wait)
	said := ""
	for {
		status, err := anyStatus(ctx, clients)
		missing := "the controller's answer"
		if err == nil {
			missing = firstMissing(status)
		}
		if missing == "" || !time.Now().Before(deadline) {
			if err == nil && missing != "" && wait > 0 {
				err = fmt.Errorf("still missing after %s: %s", wait, missing)
			}
			return status, err
		}
		if missing != said {
			a.out.say("waiting for %s", missing)
			said = missing
		}
		select {
		case <-ctx.Done():
			return status, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// anyStatus is the first controller's answer; they all hear every agent.
func anyStatus(ctx context.Context, clients []asker) (controller.Status, error) {
	var all error
	for _, c := range clients {
		status, err := c.client.Status(ctx)
		if err == nil {
			return status, nil
		}
		all = errors.Join(all, fmt.Errorf("controller %s at %s: %w", c.Name, c.Address, err))
	}
	return controller.Status{}, fmt.Errorf("no controller answers\n  hint: `fleet controller` runs one; nodes serve and can be unlocked without it\n%w", all)
}

// firstMissing is what keeps the fleet from being whole, "" when nothing does.
func firstMissing(s controller.Status) string {
	for _, n := range s.Nodes {
		if n.Freshness != controller.Fresh || n.Report == nil {
			return "a report of " + n.Node
		}
		if len(n.Report.Disks) == 0 {
			return "the disks of " + n.Node
		}
		for _, service := range n.Report.Services {
			if !service.Healthy {
				return service.Name + " of " + n.Node
			}
		}
	}
	for _, p := range s.Pairs {
		if p.State != "connected" {
			return "the link " + p.From + " → " + p.To
		}
	}
	return ""
}
