package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"popfleet/fleet/controller"
	"popfleet/provision/lifecycle"
)

func (a *app) unlockCommand() *cobra.Command {
	say := map[string]*bool{}
	var within time.Duration
	var why string
	c := &cobra.Command{
		Use:   "unlock NODE",
		Short: "Hand a locked node its key, or say whether it may have it",
		Long: "unlock needs no controller. It asks the node's provider what happened to the machine, checks the pinned initramfs host key, sends the key once, waits for the system, " +
			"proves what it booted from and exchanges the key. With --never, --allow, --approve, --expect or --trust it only writes down what you say; every decision is in `fleet audit`.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for word, said := range say {
				if *said {
					return a.runSay(c.Context(), args[0], controller.Saying{Say: word, ForSec: within.Seconds(), Why: why})
				}
			}
			if within != 0 || why != "" {
				return errors.New("--for and --why belong to what is said with --approve, --expect, --never and so on\n  hint: fleet unlock --help")
			}
			return a.runUnlock(c.Context(), args[0])
		},
	}
	f := c.Flags()
	for word, help := range map[string]string{
		controller.SayNever:   "nobody unlocks it any more, whatever the policy says",
		controller.SayAllow:   "take --never back",
		controller.SayApprove: "the next unlocking is right, although the policy holds it; good for one",
		controller.SayExpect:  "it is about to reboot, and may be unlocked unasked when it comes back",
		controller.SayTrust:   "what a suspect node boots from now is right",
	} {
		say[word] = f.Bool(word, false, help)
	}
	f.DurationVar(&within, "for", 0, "how `long` --approve or --expect holds; default 30m")
	f.StringVar(&why, "why", "", "your `reason`, for the audit log")
	c.MarkFlagsMutuallyExclusive(controller.SayNever, controller.SayAllow, controller.SayApprove, controller.SayExpect, controller.SayTrust)
	return c
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
