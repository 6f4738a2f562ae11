package ovh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"popfleet/provision/provider"
)

const hardReboot = "hardReboot"

// rebootRounds bounds how often a reboot is asked for whose reply was lost and that OVH shows no task of.
const rebootRounds = 3

// lookFor is how long a task that may have been created is looked for, at pace 1: regions show it late.
const lookFor = 30 * time.Second

// hardReboot restarts the machine and waits for OVH's task. Never are two under way at once: one that someone else, or a
// run of ours that was killed, has started is waited for first, and counts as this one when the machine had the wanted
// settings all along (had).
func (d *Driver) hardReboot(ctx context.Context, op, id string, had bool) error {
	known, pending, err := d.pendingReboot(ctx, op, id)
	if err != nil {
		return err
	}
	if pending.ID != 0 {
		say(ctx, "%s: a %s is under way already (task %d)", op, hardReboot, pending.ID)
		err := d.await(ctx, op, id, pending)
		if (err == nil && had) || (err != nil && !isOver(err)) {
			return err
		}
	}
	started, err := d.reboot(ctx, op, id, known)
	if err != nil {
		return err
	}
	return d.await(ctx, op, id, started)
}

// reboot asks for the reboot until OVH shows a task that is not among the known ones.
func (d *Driver) reboot(ctx context.Context, op, id string, known []int64) (task, error) {
	for round := 1; ; round++ {
		t, err := d.startReboot(ctx, op, id, known)
		if !errors.Is(err, errNoTrace) {
			return t, err
		}
		if round == rebootRounds {
			return t, &Error{Op: op, Kind: provider.ErrBudget, Err: bare(err), Hint: "run the same command again to go on"}
		}
		say(ctx, "%s: %v; round %d", op, bare(err), round+1)
	}
}

// isOver says whether a wait ended because the task is of no use any more, so that the next may begin.
func isOver(err error) bool {
	return errors.Is(err, provider.ErrActionFailed) || errors.Is(err, provider.ErrActionGone)
}

// pendingReboot lists the hardReboot tasks that OVH knows, and says which of them is not over. Ids rise, so only the
// newest can be.
func (d *Driver) pendingReboot(ctx context.Context, op, id string) (known []int64, pending task, err error) {
	known, err = d.tasks(ctx, op, id, "?function="+hardReboot)
	if err != nil || len(known) == 0 {
		return known, task{}, err
	}
	t, err := d.task(ctx, op, id, slices.Max(known))
	if errors.Is(err, provider.ErrNotFound) || errors.Is(err, provider.ErrBudget) {
		return known, task{ID: t.ID, Function: hardReboot}, nil // so fresh that its region does not show it
	}
	if err != nil || t.over() {
		return known, task{}, err
	}
	return known, t, nil
}

// errNoTrace says that a reboot whose reply was lost has left no task: it may be asked for again.
var errNoTrace = errors.New("the reply was lost and OVH shows no task of it")

// startReboot asks for the reboot once. When the reply is lost it looks for a task that was not there before.
func (d *Driver) startReboot(ctx context.Context, op, id string, known []int64) (task, error) {
	asked := d.clock.theirs(time.Now())
	var t task
	err := d.call(ctx, op, request{method: http.MethodPost, path: serverPath(id) + "/reboot", out: &t})
	switch {
	case err == nil && t.ID == 0:
		return task{}, &Error{Op: op, Kind: provider.ErrActionFailed, Hint: "run the same command again; if it stays so, ask OVH's support",
			Err: errors.New("OVH answered with task 0: it could not create the task, and does not say why")}
	case err == nil:
		d.opts.Log.InfoContext(ctx, "task started", "server", id, "function", hardReboot, "task", t.ID)
		return t, nil
	case ctx.Err() != nil || !mayHaveHappened(err):
		return task{}, err
	}
	say(ctx, "%v; looking whether it was taken", err)
	return d.findReboot(ctx, op, id, known, asked, err)
}

func (d *Driver) findReboot(ctx context.Context, op, id string, known []int64, asked time.Time, cause error) (task, error) {
	until := time.Now().Add(d.opts.Pace.Of(lookFor))
	for pause := d.opts.Backoff; ; pause = min(pause*8/5, maxPause) {
		t, err := d.freshReboot(ctx, op, id, known, asked)
		if err != nil || t.ID != 0 {
			return t, err
		}
		if time.Now().Add(pause).After(until) {
			return task{}, &Error{Op: op, Err: fmt.Errorf("%w: %w", errNoTrace, bare(cause))}
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return task{}, explain(op, request{}, err)
		}
	}
}

// clockSlack is how much earlier than asked for a task may say that it began: clocks of OVH's regions differ, and ours
// is known to the second.
const clockSlack = 2 * time.Minute

// freshReboot finds a hardReboot by function and start, among those that were not there before.
func (d *Driver) freshReboot(ctx context.Context, op, id string, known []int64, asked time.Time) (task, error) {
	ids, err := d.tasks(ctx, op, id, "?function="+hardReboot)
	if err != nil {
		return task{}, err
	}
	for _, n := range slices.Backward(ids) {
		if slices.Contains(known, n) {
			continue
		}
		t, err := d.task(ctx, op, id, n)
		switch {
		case errors.Is(err, provider.ErrNotFound):
			return task{ID: n, Function: hardReboot}, nil // new, and its region does not show it yet
		case err != nil:
			return task{}, err
		case t.Start.IsZero() || t.Start.After(asked.Add(-clockSlack)):
			return t, nil
		}
	}
	return task{}, nil
}

// tasks lists ids, lowest first.
func (d *Driver) tasks(ctx context.Context, op, id, query string) ([]int64, error) {
	var ids []int64
	err := d.get(ctx, op+": list its tasks", serverPath(id)+"/task"+query, &ids)
	slices.Sort(ids)
	return ids, err
}

func (d *Driver) task(ctx context.Context, op, id string, n int64) (task, error) {
	var t task
	err := d.get(ctx, fmt.Sprintf("%s: task %d", op, n), taskPath(id, n), &t)
	t.ID = n
	return t, err
}

func taskPath(id string, n int64) string { return fmt.Sprintf("%s/task/%d", serverPath(id), n) }
