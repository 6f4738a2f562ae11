package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"popfleet/internal/journal"
	"popfleet/provision/provider"
)

// Up brings nodes to serving, all side by side. Results come in the order of nodes; the error is for what concerns no
// single node. A run that is interrupted anywhere is gone on with by calling Up again.
func Up(ctx context.Context, d Deps, nodes []Node) ([]Result, error) {
	return each(ctx, d, nodes, (*node).up)
}

// each runs one function per node, without a barrier between them, and waits for all.
func each(ctx context.Context, d Deps, nodes []Node, do func(*node, context.Context) (Observation, error)) ([]Result, error) {
	f, err := newFleetRun(d)
	if err != nil {
		return nil, err
	}
	f.listServers(ctx, nodes)
	defer f.pass.close()
	f.pass.begin(nodes)
	results := make([]Result, len(nodes))
	var all sync.WaitGroup
	for i, want := range nodes {
		all.Go(func() { results[i] = f.run(ctx, want, do) })
	}
	all.Wait()
	return results, nil
}

// listServers makes each provider be asked once for all its servers instead of once per node: the APIs' budgets are
// small. The question is asked when the first of its nodes needs the answer, so a provider that does not give one holds
// up and fails its own nodes only.
func (f *fleetRun) listServers(ctx context.Context, nodes []Node) {
	f.listed = map[string]func() (map[string]provider.Server, error){}
	for _, n := range nodes {
		name := n.Machine.Provider
		if f.listed[name] != nil {
			continue
		}
		f.listed[name] = sync.OnceValues(func() (map[string]provider.Server, error) {
			p, err := f.Provider(name)
			if err != nil {
				return nil, err
			}
			return p.Servers(ctx, f.Fleet)
		})
	}
}

func (f *fleetRun) run(ctx context.Context, want Node, do func(*node, context.Context) (Observation, error)) Result {
	start := time.Now()
	n := f.node(want)
	servers, err := f.listed[want.Machine.Provider]()
	if s, ok := servers[want.Name]; ok {
		n.server = &s
	}
	n.unlisted = err
	defer n.retire()
	o, err := do(n, ctx)
	r := Result{Node: want.Name, Stage: o.Stage, Server: o.Server, Changed: n.changed, Took: time.Since(start)}
	if err != nil {
		e := n.failed(o.Stage, err)
		r.Err = e
		f.tell(Event{Node: n.name, Kind: EventFailed, Stage: o.Stage, Op: n.op, Text: e.Error(), Since: start})
		return r
	}
	f.tell(Event{Node: n.name, Kind: EventDone, Stage: o.Stage, Text: "done", Since: start})
	return r
}

// limits bound how often an operation is begun in one run.
var limits = map[Op]int{
	OpRent: 2, OpEnterRescue: 2, OpInstall: 3, OpBootDisk: 3, OpWaitAnswer: 2, OpUnlock: 2, OpWaitSystem: 2, OpSeal: 3,
	OpConverge: 3, OpWaitServing: 2, OpProveBoot: 3, OpRenewBoot: 2,
}

// up looks, plans and acts until the plan is empty.
func (n *node) up(ctx context.Context) (Observation, error) {
	var last error // why the operation that is about to be tried again did not work
	for {
		seen, err := n.see(ctx)
		if err != nil {
			return seen, err
		}
		if err := n.believe(ctx, seen); err != nil {
			tried := errors.As(err, new(*Error)) // else it could not even be begun
			if ctx.Err() != nil || !tried || final(err) || n.attempts[OpProveBoot] >= limits[OpProveBoot] {
				return seen, err
			}
			n.say(EventWarning, "%v; looking again", err)
			continue
		}
		plan := Plan(n.want, seen)
		if len(plan) == 0 {
			return seen, nil
		}
		op := plan[0]
		if n.attempts[op.Op] >= limits[op.Op] {
			return seen, exhausted(op, limits[op.Op], last, seen)
		}
		if last = n.act(ctx, op, seen); last != nil {
			if ctx.Err() != nil || final(last) {
				return seen, last
			}
			n.say(EventWarning, "%v; looking again", last)
			continue
		}
		n.before = op.Op
	}
}

func exhausted(op Operation, times int, last error, seen Observation) error {
	if last == nil {
		last = seen.Why
	}
	if last == nil {
		return fmt.Errorf("done %d times, and the node is still %s", times, seen.Stage)
	}
	var inner *Error
	if errors.As(last, &inner) {
		whole := *inner
		whole.Err = fmt.Errorf("tried %d times: %w", times, inner.Err)
		return &whole
	}
	return fmt.Errorf("tried %d times: %w", times, last)
}

// looks bounds how often a node that can't be observed is looked at before the run gives it up.
const looks = 3

// see observes and journals. A node in quarantine ends the run here, before anything else is done to it.
func (n *node) see(ctx context.Context) (Observation, error) {
	for i := 1; ; i++ {
		o, err := n.observe(ctx)
		if err != nil {
			return o, err
		}
		if err := n.Journal.Observe(ctx, n.Run, n.name, string(o.Stage), o.evidence()); err != nil {
			return o, fmt.Errorf("journal: %w", err)
		}
		n.tell(Event{Node: n.name, Kind: EventStage, Stage: o.Stage})
		switch {
		case o.Stage == Quarantined:
			return o, o.Why
		case o.Stage != Unknown:
			return o, nil
		case i == looks:
			return o, fmt.Errorf("look at the node: %w", o.Why)
		}
		n.waiting("a look at the node: %v", o.Why)
		if err := n.pause(ctx); err != nil {
			return o, err
		}
	}
}

// act journals the intent, does the operation inside its deadline, and journals what came of it.
func (n *node) act(ctx context.Context, op Operation, seen Observation) error {
	n.attempts[op.Op]++
	n.op, n.wait = op.Op, waitingFor{}
	defer func() { n.op = "" }()
	started := time.Now()
	deadline := started.Add(op.Deadline)
	id, err := n.Journal.Begin(ctx, journal.Step{Run: n.Run, Node: n.name, Op: string(op.Op), Deadline: deadline,
		Intent: intent{op.Text, n.attempts[op.Op], seen.Stage, seen.evidence()}})
	if err != nil {
		return &Error{Node: n.name, Op: op.Op, Stage: seen.Stage, Err: fmt.Errorf("journal: %w", err), Next: n.next(err)}
	}
	n.tell(Event{Node: n.name, Kind: EventBegin, Op: op.Op, Attempt: n.attempts[op.Op], Text: op.Text, Since: started})
	n.changed = n.changed || op.Op != OpWaitAnswer && op.Op != OpWaitServing && op.Op != OpWaitSystem && op.Op != OpProveBoot && op.Op != OpRenewBoot
	bounded, cancel := context.WithDeadlineCause(ctx, deadline, fmt.Errorf("not done within %s", op.Deadline))
	defer cancel()
	evidence, err := n.do(bounded, op, seen)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", context.Cause(bounded), err)
	}
	n.server = n.serverAfter(op.Op)
	if jerr := n.end(ctx, id, evidence, err); jerr != nil {
		return &Error{Node: n.name, Op: op.Op, Stage: seen.Stage, Err: jerr, Next: n.next(jerr)}
	}
	if err != nil {
		// The operation's own failure carries what it waited for, which the next look would forget.
		return n.failedAct(op, seen, err)
	}
	n.wait = waitingFor{}
	n.tell(Event{Node: n.name, Kind: EventEnd, Op: op.Op, Attempt: n.attempts[op.Op], Since: started})
	return nil
}

func (n *node) failedAct(op Operation, seen Observation, err error) error {
	n.op = op.Op
	return n.failed(seen.Stage, err)
}

// serverAfter keeps the provider's description across operations that don't change what it says.
func (n *node) serverAfter(op Op) *provider.Server {
	switch op {
	case OpRent, OpEnterRescue, OpBootDisk, OpWaitAnswer, OpWaitSystem:
		return nil
	}
	return n.server
}

type intent struct {
	Text    string   `json:"text"`
	Attempt int      `json:"attempt"`
	Stage   Stage    `json:"stage"`
	Seen    evidence `json:"seen"`
}

func (n *node) end(ctx context.Context, id int64, evidence any, err error) error {
	o := journal.Outcome{Status: journal.Done, Evidence: evidence}
	switch {
	case err != nil && ctx.Err() != nil:
		o.Status, o.Err = journal.Interrupted, err.Error()
	case err != nil:
		o.Status, o.Err = journal.Failed, err.Error()
	}
	if jerr := n.Journal.End(ctx, id, o); jerr != nil {
		return errors.Join(fmt.Errorf("journal: %w", jerr), err)
	}
	return nil
}

func (n *node) do(ctx context.Context, op Operation, seen Observation) (evidence any, err error) {
	switch op.Op {
	case OpRent:
		return nil, n.rent(ctx)
	case OpEnterRescue:
		return n.enterRescue(ctx, seen)
	case OpInstall:
		return n.install(ctx, seen)
	case OpBootDisk:
		return n.bootDisk(ctx, seen)
	case OpWaitAnswer, OpWaitSystem:
		return n.waitAnswer(ctx, op.Op, seen)
	case OpUnlock:
		return n.unlock(ctx, seen)
	case OpProveBoot:
		return n.proveBoot(ctx, seen)
	case OpRotateKey:
		return n.rotate(ctx, seen)
	case OpRenewBoot:
		return n.renew(ctx, seen)
	case OpSeal:
		return n.seal(ctx, seen)
	case OpConverge:
		return n.convergeRecorded(ctx, seen)
	case OpWaitServing:
		return nil, n.waitServing(ctx, seen)
	case OpWipe:
		return n.wipe(ctx, seen)
	}
	panic("lifecycle: no such operation: " + string(op.Op))
}

func (n *node) rent(ctx context.Context) error {
	if n.Rent == nil {
		return ErrNoServer
	}
	return n.Rent(ctx, n.name)
}

func (n *node) pause(ctx context.Context) error {
	t := time.NewTimer(n.Poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
