package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"popfleet/provision/lifecycle"
)

func (a *app) replaceCommand() *cobra.Command {
	var yes, dead bool
	c := &cobra.Command{
		Use:   "replace NODE",
		Short: "Give a node's server up and bring the node back on another one",
		Long: "replace destroys the key slots of the old server's disks and proves it, lets the server go, makes the node new keys, and brings it up on another server: " +
			"a fresh one in a cloud, for a dedicated node the one that fleet.yaml names now.\n\n" +
			"With --dead nothing of the old server is waited for: its keys are forgotten instead, so that nobody can open its disks any more.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.runReplace(c.Context(), args[0], dead, yes) },
	}
	c.Flags().BoolVar(&dead, "dead", false, "the old server does not answer and never will")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for the name to be typed")
	return c
}

func (a *app) runReplace(ctx context.Context, node string, dead, yes bool) error {
	moved, err := a.giveUpOld(ctx, node, dead, yes)
	if err != nil || !moved {
		return err
	}
	// The other nodes learn its new address too, so the run is about the whole fleet.
	return a.runUp(ctx, nil, []string{node}, true)
}

// giveUpOld wipes and releases the server that the node was installed on. Killed anywhere and run again it goes on: a
// node without a known server has nothing left to be given up.
func (a *app) giveUpOld(ctx context.Context, node string, dead, yes bool) (moved bool, err error) {
	s, err := a.open(ctx, "replace", []string{node}, needs{lock: true})
	if err != nil {
		return false, err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	n, known := s.fleet.Node(node)
	if !known {
		return false, fmt.Errorf("no node %q in fleet.yaml", node)
	}
	state, err := s.vault.NodeState(node)
	if err != nil {
		return false, err
	}
	if n.Machine.Dedicated() && state.Provider == n.Machine.Provider && state.ServerID == n.Machine.Server {
		return false, fmt.Errorf("%s would come back on the very server it is on, %s %s\n  hint: name the other one under machine.server in fleet.yaml first; to install this one anew: fleet down %s, then fleet up",
			node, n.Machine.Provider, n.Machine.Server, node)
	}
	how := "its key slots destroyed, proven, and the server given back"
	if dead {
		how = "given back without a look, its keys forgotten: nobody can open its disks any more"
	}
	a.out.data("%s: server %s at %s: %s; then installed anew on another server\n", node, state.ServerID, state.Provider, how)
	if err := a.confirm(yes, "This cannot be undone.", node); err != nil {
		return false, err
	}
	if state.ServerID == "" {
		return true, nil
	}
	if s.clouds, err = s.openClouds(ctx, node); err != nil {
		return false, err
	}
	machine := n.Machine
	machine.Provider, machine.Server = state.Provider, ""
	if machine.Dedicated() {
		machine.Server = state.ServerID
	}
	wiped := []string{node}
	if !dead {
		if wiped, err = s.wipe(ctx, []lifecycle.Node{{Name: node, PoP: n.PoP, Machine: machine}}); err != nil {
			return false, err
		}
		if len(wiped) == 0 {
			return false, fmt.Errorf("its key slots could not be proven destroyed; nothing was given back\n  hint: if nothing of the server will ever answer again: %s", a.again("replace", "--dead", node))
		}
	}
	return true, s.giveBack(ctx, wiped, 1, false)
}
