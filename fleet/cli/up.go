package cli

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"popfleet/inventory"
	"popfleet/provision/lifecycle"
	"popfleet/provision/stack"
)

func (a *app) upCommand() *cobra.Command {
	var yes bool
	var adopt []string
	c := &cobra.Command{
		Use:   "up [POP…]",
		Short: "Bring PoPs from whatever they are to serving",
		Long: "up shows what `fleet plan` shows, asks, and does it. Interrupted anywhere, the same command goes on.\n\n" +
			"A dedicated server that exists already is erased only when its node is named with --adopt.",
		RunE: func(c *cobra.Command, args []string) error { return a.runUp(c.Context(), args, adopt, yes) },
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().StringSliceVar(&adopt, "adopt", nil, "take over the dedicated server of this `NODE` and erase its disks; may be repeated")
	return c
}

func (a *app) runUp(ctx context.Context, pops, adopt []string, yes bool) (err error) {
	s, err := a.open(ctx, "up", pops, needs{lock: true, providers: true})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	p, err := s.plan(ctx, pops)
	if err != nil {
		return err
	}
	p.print(a.out)
	if p.empty() {
		return p.err(a.again("up", pops...))
	}
	if err := p.refuseUnadopted(adopt, a.again("up", pops...)); err != nil {
		return err
	}
	if err := a.confirm(yes, "do this?", "yes"); err != nil {
		return err
	}
	return s.carryOut(ctx, p, pops)
}

// confirm asks for a word. Without a terminal only --yes says yes.
func (a *app) confirm(yes bool, question, word string) error {
	if yes {
		return nil
	}
	if !a.env.Terminal {
		return fmt.Errorf("there is no terminal to ask %q on; nothing was done\n  hint: --yes answers it beforehand", question)
	}
	fmt.Fprintf(a.env.Stderr, "%s Type %q: ", question, word)
	line, err := bufio.NewReader(a.env.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != word {
		return fmt.Errorf("not confirmed; nothing was done")
	}
	return nil
}

func (s *session) carryOut(ctx context.Context, p plan, pops []string) error {
	show := newProgress(s.app.out, s.app.env.Terminal)
	defer show.stop()
	s.show = show
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.erases() {
		// Built while servers are rented and rescue systems boot; whoever needs it first waits for the rest.
		s.imaging.Go(func() { _, _ = s.image(ctx) }) // its error is told to the node that needs it
	}
	failed := map[string]error{}
	if len(p.objects) > 0 {
		result, err := s.upObjects(ctx, p.scope, show)
		if err != nil {
			return fmt.Errorf("the provider's objects: %w\n  go on with: %s", err, s.app.again("up", pops...))
		}
		failed = result.Errors
	}
	addresses, err := s.addresses(ctx)
	if err != nil {
		return err
	}
	nodes, err := s.nodes(pops)
	if err != nil {
		return err
	}
	ready := s.ready(nodes, failed)
	results, err := s.bringUp(ctx, ready, addresses, show)
	if err == nil && len(pops) == 0 {
		var shared []lifecycle.Result
		shared, err = s.sharePeers(ctx, nodes, addresses, show)
		results = withShared(results, shared)
		results = slices.DeleteFunc(results, func(r lifecycle.Result) bool { return failed[r.Node] != nil })
	}
	show.stop()
	if err != nil {
		return err
	}
	return s.conclude(results, failed, pops)
}

// ready are the nodes that nothing keeps from being brought up; failed is completed with those of providers that can't be
// asked, and rid of such that this run is not about.
func (s *session) ready(nodes []lifecycle.Node, failed map[string]error) (ready []lifecycle.Node) {
	maps.DeleteFunc(failed, func(node string, err error) bool {
		return node != "" && unreachable(err) && !slices.ContainsFunc(nodes, func(n lifecycle.Node) bool { return n.Name == node })
	})
	for _, n := range nodes {
		if err := s.clouds.down[n.Machine.Provider]; err != nil {
			failed[n.Name] = err
		}
		if failed[n.Name] == nil {
			ready = append(ready, n)
		}
	}
	return ready
}

func (s *session) upObjects(ctx context.Context, scope inventory.Fleet, show *progress) (stack.Result, error) {
	options, err := s.stackOptions()
	if err != nil {
		return stack.Result{}, err
	}
	wanted, err := s.wantedObjects(scope)
	if err != nil {
		return stack.Result{}, err
	}
	began := time.Now()
	result, err := stack.Up(ctx, options, wanted, show.object)
	for _, node := range slices.Sorted(maps.Keys(result.Unnamed)) {
		s.app.out.say("%s %s has no reverse DNS name yet: %v; the next `fleet up` tries again", s.app.out.paint(yellow, "!"), node, result.Unnamed[node])
	}
	show.object(stack.Event{Key: "all", Phase: "done", Waiting: fmt.Sprintf("%d object(s) in %s", len(result.Changes), time.Since(began).Round(time.Second))})
	return result, err
}

func (s *session) bringUp(ctx context.Context, nodes []lifecycle.Node, addresses map[string][]netip.Addr, show *progress) ([]lifecycle.Result, error) {
	d, err := s.deps(show.node)
	if err != nil {
		return nil, err
	}
	c, err := s.compiler(addresses)
	if err != nil {
		return nil, err
	}
	d.Compiler = c
	return lifecycle.Up(ctx, d, nodes)
}

// conclude says how every node ended and which exit code that is.
func (s *session) conclude(results []lifecycle.Result, failed map[string]error, pops []string) error {
	out := s.app.out
	var bad []failure
	for _, node := range slices.Sorted(maps.Keys(failed)) {
		bad = append(bad, failure{node, failed[node]})
		out.event("result", node, map[string]any{"error": failed[node].Error()})
	}
	for _, r := range results {
		if r.Err != nil {
			bad = append(bad, failure{r.Node, r.Err})
			out.event("result", r.Node, map[string]any{"stage": r.Stage, "took_sec": r.Took.Seconds(), "error": r.Err.Error()})
			continue
		}
		out.data("%s %s %s in %s\n", out.paint(green, "✓"), r.Node, r.Stage, r.Took.Round(time.Second))
		out.event("result", r.Node, map[string]any{"stage": r.Stage, "changed": r.Changed, "took_sec": r.Took.Seconds(), "address": r.Server.Addr4})
	}
	s.sayFailed(bad...)
	switch total := len(results) + len(failed); {
	case len(bad) == 0:
		return nil
	case len(bad) < total:
		return exit(CodePartial, fmt.Errorf("%d of %d node(s) failed, the others are as wanted\n  go on with: %s", len(bad), total, s.app.again("up", pops...)))
	default:
		return fmt.Errorf("no node came up\n  go on with: %s", s.app.again("up", pops...))
	}
}
