package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
)

func (a *app) mendCommand() *cobra.Command {
	var yes bool
	var disk string
	c := &cobra.Command{
		Use:   "mend NODE",
		Short: "Put a new disk into a node's mirrors, in the place of one that is gone",
		Long: `mend asks the node which disk it would take: the only blank one, one that a former attempt did not finish, or its own that fell out.
It shows the plan, asks, partitions the disk as the other one is, puts both boot loaders on it, adds it to the mirrors, waits until the
kernel has written everything, and makes the reboot check. The node serves all the while. Killed anywhere and run again it goes on.

A disk that is not blank is taken only when --disk names it, and its serial is typed: --yes does not answer for that.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runMend(c.Context(), args[0], lifecycle.MendWish{Disk: disk}, yes)
		},
	}
	c.Flags().StringVar(&disk, "disk", "", "serial of the disk to put in")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before a blank disk is taken")
	return c
}

func (a *app) runMend(ctx context.Context, name string, w lifecycle.MendWish, yes bool) (err error) {
	s, err := a.open(ctx, "mend", []string{name}, needs{lock: true})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	n, known := s.fleet.Node(name)
	if !known {
		return fmt.Errorf("no node %q in fleet.yaml", name)
	}
	node := lifecycle.Node{Name: name, PoP: n.PoP, Machine: n.Machine}
	if w, err = s.proposeMend(ctx, node, w, yes); err != nil {
		return err
	}
	if err := s.mend(ctx, node, w); err != nil {
		return err
	}
	s.namedDisks(node)
	return s.mended(ctx, name)
}

// proposeMend shows what would be done and has it confirmed. A disk that is not blank is erased by its typed serial only.
func (s *session) proposeMend(ctx context.Context, node lifecycle.Node, w lifecycle.MendWish, yes bool) (lifecycle.MendWish, error) {
	d, err := s.deps(nil)
	if err != nil {
		return w, err
	}
	plan, err := lifecycle.ProposeMend(ctx, d, node, w)
	var told *spec.Error
	if errors.As(err, &told) && told.Code == spec.CodeWrongDisk && w.Disk != "" {
		w.Erase = true
		if again, err2 := lifecycle.ProposeMend(ctx, d, node, w); err2 == nil {
			plan, err = again, nil
		}
	}
	if err != nil {
		return w, err
	}
	s.showMend(node.Name, plan, w.Erase)
	switch {
	case plan.Do == spec.MendNothing:
		return lifecycle.MendWish{Wait: true}, nil
	case w.Erase:
		return w, s.app.confirm(false, "What is on this disk is gone for good.", plan.Disk.Serial)
	}
	w.Disk = plan.Disk.Serial // what was shown is what is done
	return w, s.app.confirm(yes, "The disk is written to.", node.Name)
}

var mendWords = map[string]string{
	spec.MendNew:    "partition it as the other one is, put both boot loaders on it, add it to the mirrors",
	spec.MendFinish: "go on where a former attempt ended: partition it, boot loaders, add it to the mirrors",
	spec.MendBack:   "it is this node's own and fell out: add it to the mirrors again",
}

func (s *session) showMend(node string, plan spec.MendPlan, erase bool) {
	out := s.app.out
	for _, m := range plan.Mirrors {
		words := "whole"
		switch {
		case m.Percent != nil:
			words = fmt.Sprintf("being written, %.0f %%", *m.Percent)
		case m.Rebuilds:
			words = "being written"
		case m.InSync < m.Wanted:
			words = "degraded"
		}
		out.data("%s: %s (%s) runs on %d of %d disks: %s\n", node, m.Name, m.Device, m.InSync, m.Wanted, words)
	}
	if d := plan.Disk; d != nil {
		what := mendWords[plan.Do]
		if erase {
			what = "ERASE it, then " + what
		}
		out.data("%s: disk %s (%s, %.0f GB, %s): %s\n", node, d.Serial, d.Path, float64(d.SizeBytes)/1e9, d.Content, what)
	}
	out.event("mend_plan", node, plan)
}

func (s *session) mend(ctx context.Context, node lifecycle.Node, w lifecycle.MendWish) error {
	show := newProgress(s.app.out, s.app.env.Terminal)
	defer show.stop()
	d, err := s.deps(show.node)
	if err != nil {
		return err
	}
	if _, err = lifecycle.Mend(ctx, d, node, w); err != nil {
		return fmt.Errorf("%w\n  hint: `%s` goes on where it is", err, s.app.again("mend", node.Name))
	}
	return nil
}

// namedDisks: a fleet file that names the old disk would have the next installation look for it.
func (s *session) namedDisks(node lifecycle.Node) {
	state, err := s.vault.NodeState(node.Name)
	if err != nil {
		return
	}
	for _, serial := range node.Machine.Disks.Serials {
		if !slices.Contains(state.DiskSerials, serial) {
			s.app.out.say("%s: fleet.yaml names disk %s, which is not in its mirrors; they are on %v now", node.Name, serial, state.DiskSerials)
		}
	}
}

// mended ends with the reboot check: a mirror is there for the day on which one disk is not.
func (s *session) mended(ctx context.Context, node string) error {
	s.app.out.data("%s %s: its mirrors are whole\n", s.app.out.paint(green, "✓"), node)
	ask, err := s.bootAsker()
	if err != nil {
		return err
	}
	c := checked{node: node}
	c.result, c.err = ask.one(ctx, node)
	s.app.showChecked(c)
	if c.err != nil || !c.result.OK() {
		return exit(CodePartial, fmt.Errorf("%s would not come back, or could not be asked\n  hint: what to do is said above; then `%s`", node, s.app.again("check", "reboot", node)))
	}
	return nil
}
