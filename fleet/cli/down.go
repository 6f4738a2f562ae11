package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"popfleet/inventory"
	"popfleet/provision/lifecycle"
	"popfleet/provision/stack"
)

func (a *app) downCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "down NODE|POP|FLEET…",
		Short: "Destroy the key slots of nodes, prove it, then give their servers back",
		Long:  "down erases every LUKS key slot first and reads the header back. Only a node whose disk can be opened by nothing any more is released. Naming the fleet takes everything down.",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.runDown(c.Context(), args, yes) },
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for the name to be typed")
	return c
}

func (a *app) runDown(ctx context.Context, targets []string, yes bool) (err error) {
	s, err := a.open(ctx, "down", targets, needs{lock: true, providers: true})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	everything := slices.Equal(targets, []string{s.fleet.Name})
	if everything {
		targets = nil
	}
	nodes, err := s.doomed(targets)
	if err != nil {
		return err
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	word := s.fleet.Name
	if !everything {
		word = strings.Join(targets, " ")
	}
	a.out.data("%s: key slots destroyed, server given back, data gone for good\n", strings.Join(names, ", "))
	if err := a.confirm(yes, "This cannot be undone.", word); err != nil {
		return err
	}
	wiped, err := s.wipe(ctx, nodes)
	if err != nil {
		return err
	}
	return s.giveBack(ctx, wiped, len(nodes), everything)
}

// doomed are the nodes named: of the fleet file, or taken out of it while their servers were still there.
func (s *session) doomed(targets []string) ([]lifecycle.Node, error) {
	var inFile []string
	var gone []lifecycle.Node
	for _, name := range targets {
		if s.hasPoPOrNode(name) {
			inFile = append(inFile, name)
			continue
		}
		state, err := s.vault.NodeState(name)
		if err != nil || state.ServerID == "" {
			inFile = append(inFile, name) // nodes says what there is
			continue
		}
		pop, _, _ := strings.Cut(name, "-")
		machine := inventory.Machine{Provider: cmp.Or(state.Provider, inventory.ProviderHetznerCloud)}
		if machine.Dedicated() {
			machine.Server = state.ServerID
		}
		gone = append(gone, lifecycle.Node{Name: name, PoP: pop, Machine: machine})
	}
	if len(targets) > 0 && len(inFile) == 0 {
		return gone, nil
	}
	nodes, err := s.nodes(inFile)
	return append(nodes, gone...), err
}

// wipe returns the nodes whose disks nothing opens any more.
func (s *session) wipe(ctx context.Context, nodes []lifecycle.Node) (wiped []string, err error) {
	show := newProgress(s.app.out, s.app.env.Terminal)
	defer show.stop()
	d, err := s.deps(show.node)
	if err != nil {
		return nil, err
	}
	results, err := lifecycle.Wipe(ctx, d, nodes)
	show.stop()
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Err != nil {
			s.app.out.say("%s %s is kept: %v", s.app.out.paint(red, "✗"), r.Node, r.Err)
			continue
		}
		wiped = append(wiped, r.Node)
	}
	return wiped, nil
}

func (s *session) giveBack(ctx context.Context, wiped []string, wanted int, everything bool) error {
	if len(wiped) == 0 {
		return fmt.Errorf("no key slot could be proven destroyed; no server was given back")
	}
	options, err := s.stackOptions()
	if err != nil {
		return err
	}
	options.AllowDelete = wiped
	targets := wiped
	if everything && len(wiped) == wanted {
		targets = nil // the key, the firewall and the networks go too
	}
	result, err := stack.Destroy(ctx, options, newObjectLog(s.app.out), targets...)
	if err := firstOf(err, result.Err()); err != nil {
		return fmt.Errorf("give servers back: %w", err)
	}
	for _, node := range wiped {
		if err := s.vault.Forget(node); err != nil {
			return err
		}
		s.app.out.data("%s %s is gone, its keys forgotten\n", s.app.out.paint(green, "✓"), node)
		for _, step := range result.Remains[node] {
			s.app.out.data("    left for you: %s\n", step)
		}
		s.app.out.event("result", node, map[string]any{"stage": "absent", "left_for_you": result.Remains[node]})
	}
	if len(wiped) < wanted {
		return exit(CodePartial, fmt.Errorf("%d of %d node(s) were kept, see above", wanted-len(wiped), wanted))
	}
	return nil
}

func newObjectLog(out *printer) stack.Progress {
	return func(e stack.Event) {
		out.event("object", e.Node, map[string]any{"key": e.Key, "phase": e.Phase, "waiting": e.Waiting, "error": text(e.Err)})
		if e.Phase != "" {
			out.say("  %s %s %s", e.Key, e.Phase, e.Waiting)
		}
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
