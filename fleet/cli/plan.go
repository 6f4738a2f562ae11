package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"popfleet/inventory"
	"popfleet/provision/lifecycle"
	"popfleet/provision/stack"
)

func (a *app) planCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "plan [POP…]",
		Short: "Show what `fleet up` would do; exit 2 when there is something",
		RunE:  func(c *cobra.Command, args []string) error { return a.runPlan(c.Context(), args) },
	}
}

func (a *app) runPlan(ctx context.Context, pops []string) (err error) {
	s, err := a.open(ctx, "plan", pops, needs{lock: true, providers: true})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	p, err := s.plan(ctx, pops)
	if err != nil {
		return err
	}
	p.print(a.out)
	err = p.err(a.again("plan", pops...))
	if p.empty() || codeOf(err) == CodeError {
		return err
	}
	if err != nil { // changes weigh more, but what is unknown is said
		a.out.say("%v", err)
	}
	return exit(CodeChanges, nil)
}

// plan is everything `up` would do: the provider's objects, then each node.
type plan struct {
	objects   stack.Changes
	proposals []lifecycle.Proposal
	scope     inventory.Fleet // the part of the fleet that the provider's objects are of
	shares    []string        // nodes whose peers are to hold other shares; only of a run about the whole fleet
	unread    []error         // what the nodes of a provider share, and could not be looked at
}

// plan looks at everything side by side and touches nothing.
func (s *session) plan(ctx context.Context, pops []string) (plan, error) {
	nodes, err := s.nodes(pops)
	if err != nil {
		return plan{}, err
	}
	s.app.out.say("looking at %d node(s) and the provider's objects …", len(nodes))
	addresses, err := s.addresses(ctx)
	if err != nil {
		return plan{}, err
	}
	if err := s.reachable(nodes); err != nil {
		return plan{}, err
	}
	if err := s.checkProject(addresses); err != nil {
		return plan{}, err
	}
	p := plan{scope: scope(*s.fleet, pops, s.mayExist(addresses))}
	var objects stack.Result
	var stackErr, nodeErr error
	var wg sync.WaitGroup
	wg.Go(func() { objects, stackErr = s.previewObjects(ctx, p.scope) })
	wg.Go(func() { p.proposals, nodeErr = s.propose(ctx, nodes, addresses) })
	wg.Wait()
	if stackErr != nil {
		return plan{}, fmt.Errorf("look at the provider's objects: %w", stackErr)
	}
	p.take(objects)
	if nodeErr != nil || len(pops) > 0 {
		return p, nodeErr
	}
	p.shares, err = s.pendingShares(nodes)
	return p, err
}

// take adds what is to be done to the objects. A node whose server could not be looked at has no plan, whoever noticed.
func (p *plan) take(objects stack.Result) {
	p.objects = objects.Changes
	for i, n := range p.proposals {
		if err := objects.Errors[n.Node.Name]; err != nil && n.Err == nil {
			p.proposals[i].Err, p.proposals[i].Plan = err, nil
		}
	}
	if err := objects.Errors[""]; err != nil {
		p.unread = append(p.unread, err)
	}
}

func (s *session) previewObjects(ctx context.Context, scope inventory.Fleet) (stack.Result, error) {
	options, err := s.stackOptions()
	if err != nil {
		return stack.Result{}, err
	}
	wanted, err := s.wantedObjects(scope)
	if err != nil {
		return stack.Result{}, err
	}
	return stack.Preview(ctx, options, wanted)
}

func (s *session) propose(ctx context.Context, nodes []lifecycle.Node, addresses map[string][]netip.Addr) ([]lifecycle.Proposal, error) {
	d, err := s.deps(nil)
	if err != nil {
		return nil, err
	}
	c, err := s.compiler(addresses)
	if err != nil {
		return nil, err
	}
	d.Compiler = c
	image, err := s.imageDigest()
	if err != nil {
		return nil, err
	}
	return lifecycle.Propose(ctx, d, nodes, image)
}

func (p plan) empty() bool {
	return len(p.objects) == 0 && len(p.shares) == 0 && !slices.ContainsFunc(p.proposals, func(n lifecycle.Proposal) bool { return len(n.Plan) > 0 })
}

// erases says that some disk will be installed, so that the image is needed.
func (p plan) erases() bool {
	return slices.ContainsFunc(p.proposals, func(n lifecycle.Proposal) bool {
		return slices.ContainsFunc(n.Plan, func(o lifecycle.Operation) bool { return o.Erases })
	})
}

// refuseUnadopted: a dedicated server that we did not install may be somebody's, and its number mistyped.
func (p plan) refuseUnadopted(adopt []string, again string) error {
	var list, flags []string
	for _, n := range p.proposals {
		m := n.Node.Machine
		if !m.Dedicated() || n.Seen.Pending || slices.Contains(adopt, n.Node.Name) ||
			!slices.ContainsFunc(n.Plan, func(o lifecycle.Operation) bool { return o.Op == lifecycle.OpInstall }) {
			continue
		}
		list = append(list, fmt.Sprintf("%s server %s (%s)", m.Provider, m.Server, n.Node.Name))
		flags = append(flags, "--adopt "+n.Node.Name)
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%s would be erased, and nothing says that nobody else uses it; nothing was done\n  hint: look at it at the provider, then: %s %s",
		strings.Join(list, ", "), again, strings.Join(flags, " "))
}

// err is why some node could not be looked at, or must not be touched; again is the command that looks once more.
func (p plan) err(again string) error {
	var failed []string
	for _, n := range p.proposals {
		if n.Err != nil {
			failed = append(failed, n.Node.Name)
		}
	}
	if len(failed) > 0 && len(failed) == len(p.proposals) {
		return fmt.Errorf("no node could be planned: %w", p.proposals[0].Err)
	}
	for _, err := range p.unread {
		failed = append(failed, err.Error())
	}
	if len(failed) == 0 {
		return nil
	}
	return exit(CodePartial, fmt.Errorf("not planned: %s\n  go on with: %s", strings.Join(failed, ", "), again))
}

// unknown are the nodes whose provider could not be asked, by its reason.
func (p plan) unknown() []cause {
	var silent []failure
	for _, n := range p.proposals {
		if unreachable(n.Err) {
			silent = append(silent, failure{n.Node.Name, n.Err})
		}
	}
	return causes(silent)
}

func (p plan) print(out *printer) {
	out.event("plan", "", map[string]any{"objects": p.objects, "nodes": p.forMachines(), "shares": p.shares})
	if p.empty() && p.err("") == nil {
		out.data("no changes: %d node(s) as the fleet file says\n", len(p.proposals))
		return
	}
	if len(p.objects) > 0 {
		out.data("%s\n", out.paint(bold, "at the provider"))
		for _, c := range p.objects {
			out.data("  %s\n", c)
		}
	}
	for _, n := range p.proposals {
		if !unreachable(n.Err) {
			p.printNode(out, n)
		}
	}
	for _, c := range p.unknown() {
		out.data("%s %s: %s\n  %s\n", out.paint(red, "unknown:"), strings.Join(c.nodes, ", "), c.reason(), strings.Join(c.next(), "\n  "))
	}
	for _, node := range p.shares {
		out.data("%s  its peers get other shares of the key that opens it without a controller\n", out.paint(bold, node))
	}
	out.data("%s\n", p.summary())
}

func (p plan) printNode(out *printer, n lifecycle.Proposal) {
	out.data("%s  is %s\n", out.paint(bold, n.Node.Name), n.Seen.Stage)
	if n.Err != nil {
		out.data("  %s %v\n", out.paint(red, "cannot be planned:"), n.Err)
		return
	}
	for i, op := range n.Plan {
		line := strings.TrimPrefix(op.Describe(), n.Node.Name+": ")
		if op.Erases {
			line = out.paint(red, line)
		}
		out.data("  %d. %s\n", i+1, line)
	}
	for _, change := range n.Seen.Changes {
		out.data("     ~ %s\n", change)
	}
	for _, d := range n.Diff {
		if strings.Contains(d.Text, "\n") {
			out.data("%s\n", indent(d.Text, "       "))
		}
	}
}

func (p plan) summary() string {
	ops, erased := 0, 0
	for _, n := range p.proposals {
		ops += len(n.Plan)
		for _, op := range n.Plan {
			if op.Erases {
				erased++
			}
		}
	}
	unknown := ""
	for _, c := range p.unknown() {
		unknown += fmt.Sprintf(", %d node(s) of %s unknown", len(c.nodes), c.silent().Provider)
	}
	return fmt.Sprintf("%d change(s) at the provider, %d operation(s) on %d node(s), %d disk installation(s)%s", len(p.objects), ops, len(p.proposals), erased, unknown)
}

// forMachines is the plan of --json.
func (p plan) forMachines() []map[string]any {
	nodes := []map[string]any{}
	for _, n := range p.proposals {
		m := map[string]any{"node": n.Node.Name, "stage": n.Seen.Stage, "changes": n.Seen.Changes, "operations": n.Plan}
		if n.Err != nil {
			m["error"] = n.Err.Error()
		}
		nodes = append(nodes, m)
	}
	return nodes
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
