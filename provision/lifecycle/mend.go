package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"popfleet/internal/journal"
	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// The operations that put a disk into the mirrors of a running node; in no plan of [Up].
const (
	OpMend        Op = "mend"
	OpWaitMirrors Op = "wait-mirrors"
)

// A large disk is written for a day at most; putting it in takes a minute.
const (
	mendDeadline    = 5 * time.Minute
	mirrorsDeadline = 24 * time.Hour
	mirrorsLost     = 10 * time.Minute // without an answer, while waiting
)

// MendWish is which disk is to be put in.
type MendWish struct {
	Disk  string // serial; "" is the only blank one
	Erase bool   // what is on Disk may be destroyed
	Wait  bool   // no disk is to be taken: only what is under way is waited for
}

// ProposeMend asks a node what putting a disk into its mirrors would do, and changes nothing.
func ProposeMend(ctx context.Context, d Deps, want Node, w MendWish) (plan spec.MendPlan, err error) {
	_, err = mending(ctx, d, want, func(n *node, ctx context.Context, _ Observation) (err error) {
		plan, err = n.mendCall(ctx, spec.OpMendPlan, w)
		return err
	})
	return plan, err
}

// Mend puts the disk in, writes its serial down, and waits until every mirror is whole. Cut anywhere and called again it
// goes on.
func Mend(ctx context.Context, d Deps, want Node, w MendWish) (Result, error) {
	return mending(ctx, d, want, func(n *node, ctx context.Context, seen Observation) error {
		if err := n.unsuspected(seen); err != nil {
			return err
		}
		err := n.mendStep(ctx, OpMend, "put a disk into its mirrors", mendDeadline, seen, func(ctx context.Context) (any, error) { return n.putIn(ctx, seen, w) })
		if err != nil {
			return err
		}
		return n.mendStep(ctx, OpWaitMirrors, "wait until its mirrors are whole", mirrorsDeadline, seen, n.waitMirrors)
	})
}

// mending looks at the node, which must run for good, and does what is to be done.
func mending(ctx context.Context, d Deps, want Node, do func(*node, context.Context, Observation) error) (Result, error) {
	d.Compiler = nil // what it should look like does not matter here
	r, err := each(ctx, d, []Node{want}, func(n *node, ctx context.Context) (Observation, error) {
		seen, err := n.see(ctx)
		if err != nil {
			return seen, err
		}
		if !runsSealed(seen.Stage) || seen.Facts == nil {
			return seen, fmt.Errorf("it is %s: a mirror is mended while the node runs", seen.Stage)
		}
		return seen, do(n, ctx, seen)
	})
	if err != nil {
		return Result{}, err
	}
	return r[0], r[0].Err
}

// mendStep is one step, journalled before and after.
func (n *node) mendStep(ctx context.Context, op Op, text string, limit time.Duration, seen Observation, do func(context.Context) (any, error)) error {
	n.attempts[op]++
	n.op, n.wait = op, waitingFor{}
	defer func() { n.op = "" }()
	started := time.Now()
	if limit < mirrorsDeadline { // how long a disk is written does not depend on how fast the machine starts
		limit = n.want.slowness().Of(limit)
	}
	id, err := n.Journal.Begin(ctx, journal.Step{Run: n.Run, Node: n.name, Op: string(op), Deadline: started.Add(limit),
		Intent: intent{text, n.attempts[op], seen.Stage, seen.evidence()}})
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	n.tell(Event{Node: n.name, Kind: EventBegin, Op: op, Text: text, Since: started})
	n.changed = true
	bounded, cancel := context.WithDeadlineCause(ctx, started.Add(limit), fmt.Errorf("not done within %s", limit))
	defer cancel()
	evidence, err := do(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", context.Cause(bounded), err)
	}
	if jerr := n.end(ctx, id, evidence, err); jerr != nil {
		return jerr
	}
	if err != nil {
		e := n.failed(seen.Stage, err)
		e.Next = "fleet mend " + n.name
		return e
	}
	n.tell(Event{Node: n.name, Kind: EventEnd, Op: op, Since: started})
	return nil
}

// putIn has the node take the disk. What it boots from changes by it: the new disk's loaders are recorded.
func (n *node) putIn(ctx context.Context, seen Observation, w MendWish) (any, error) {
	var plan spec.MendPlan
	err := n.changedByUs(ctx, seen, func() (bool, error) {
		n.waiting("the node to put the disk into its mirrors")
		op := spec.OpMend
		if w.Wait {
			op = spec.OpMendPlan
		}
		var err error
		plan, err = n.mendCall(ctx, op, w)
		return !w.Wait, err
	})
	if err != nil {
		return plan, err
	}
	return plan, n.knowDisks(plan.Serials)
}

// knowDisks writes down which disks carry the node now: `down` destroys the keys on them, and misses none of them.
func (n *node) knowDisks(serials []string) error {
	if len(serials) == 0 {
		return errors.New("the node names no disk that carries it")
	}
	s, err := n.state()
	if err != nil {
		return err
	}
	if slices.Equal(s.DiskSerials, serials) {
		return nil
	}
	s.DiskSerials = serials
	return n.remember(s)
}

func (n *node) mendCall(ctx context.Context, op string, w MendWish) (plan spec.MendPlan, err error) {
	if err := n.ensureSystemLink(ctx); err != nil {
		return plan, err
	}
	err = n.call(ctx, remote.Call{Op: op, Result: &plan, Spec: spec.Mend{Version: 1, Node: n.name, Disk: w.Disk, Erase: w.Erase}})
	return plan, err
}

// waitMirrors shows how far the kernel is. A link that breaks is made anew; the kernel goes on meanwhile.
func (n *node) waitMirrors(ctx context.Context) (any, error) {
	heard := time.Now()
	for {
		plan, err := n.mendCall(ctx, spec.OpMendPlan, MendWish{})
		switch {
		case err == nil && plan.Whole():
			return plan, n.knowDisks(plan.Serials)
		case err == nil && plan.Do != spec.MendNothing:
			return plan, errors.New("a mirror lost a member again while it was written: see docs/runbooks/degraded-mirror.md")
		case isReported(err), ctx.Err() != nil:
			return nil, err
		case err == nil:
			heard = time.Now()
			n.showMirrors(plan)
		case time.Since(heard) > n.Pace.Of(mirrorsLost):
			return nil, fmt.Errorf("no answer while its mirrors are written: %w", err)
		}
		if err := n.pause(ctx); err != nil {
			return nil, err
		}
	}
}

func (n *node) showMirrors(plan spec.MendPlan) {
	var words []string
	for _, m := range plan.Mirrors {
		switch {
		case m.Percent != nil:
			words = append(words, fmt.Sprintf("%s %.0f %%", m.Name, *m.Percent))
		case m.InSync < m.Wanted:
			words = append(words, m.Name+" waits for its turn")
		}
	}
	n.waiting("the kernel to write the new disk: %s", strings.Join(words, ", "))
}
