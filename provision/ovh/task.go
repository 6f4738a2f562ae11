package ovh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"popfleet/provision/provider"
)

// task is work of OVH's on a server: dedicated.server.Task.
type task struct {
	ID           int64     `json:"taskId"`
	Function     string    `json:"function"`
	Status       string    `json:"status"` // init, todo, doing, done, cancelled, customerError, ovhError
	Comment      string    `json:"comment"`
	Start        time.Time `json:"startDate"`
	Done         time.Time `json:"doneDate"`
	Update       time.Time `json:"lastUpdate"`
	NeedSchedule bool      `json:"needSchedule"`
}

func (t task) over() bool {
	switch t.Status {
	case "done", "cancelled", "customerError", "ovhError":
		return true
	}
	return false
}

func (t task) String() string {
	text := fmt.Sprintf("task %d (%s) is %s", t.ID, printable(t.Function, 60), printable(t.Status, 20))
	if t.Status == "" {
		text = fmt.Sprintf("task %d (%s) is not shown yet", t.ID, printable(t.Function, 60))
	}
	if t.NeedSchedule && !t.over() {
		text += ", and waits for a time slot that has to be chosen in OVH's control panel"
	}
	if t.Comment != "" {
		text += ": " + printable(t.Comment, 200)
	}
	return text
}

const (
	// taskDeadline bounds a reboot task at pace 1. OVH's own tools give any task an hour; a reboot that takes half of
	// that has failed.
	taskDeadline = 30 * time.Minute
	// unreadable is how long a task may answer 404 or 500 at pace 1, as it does while it is fresh.
	unreadable = 5 * time.Minute
)

// await waits until t is done. A task that fails is [provider.ErrActionFailed] with OVH's comment, one that OVH does not
// show for [unreadable] is [provider.ErrActionGone], one that does not end is [provider.ErrTimeout] with what was last seen.
func (d *Driver) await(ctx context.Context, op, id string, t task) error {
	w := &wait{d: d, op: op, id: id, last: t, started: time.Now(), readable: time.Now()}
	limit := d.opts.Pace.Of(taskDeadline)
	for pause := d.opts.Backoff; ; pause = min(pause*6/5, 20*d.opts.Backoff) {
		w.tell(ctx)
		if w.last.over() {
			return w.end()
		}
		if time.Since(w.started)+pause > limit {
			return &Error{Op: op, Kind: provider.ErrTimeout, Err: fmt.Errorf("after %s %s", limit, w.last), Hint: w.hint()}
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return explain(op, request{}, err)
		}
		if err := w.poll(ctx); err != nil {
			return err
		}
	}
}

// wait is the wait for one task.
type wait struct {
	d        *Driver
	op, id   string
	last     task // as it was last seen
	started  time.Time
	readable time.Time // when it was last seen
	told     string
}

// tell says what is waited for when that has changed.
func (w *wait) tell(ctx context.Context) {
	if text := w.last.String(); text != w.told {
		say(ctx, "%s: %s", w.op, text)
		w.told = text
	}
}

// poll reads the task once. What goes wrong is borne for a while, save what no repeating mends.
func (w *wait) poll(ctx context.Context) error {
	var t task
	r := request{method: http.MethodGet, path: taskPath(w.id, w.last.ID), out: &t}
	err := w.d.try(ctx, r)
	if err == nil {
		t.ID = w.last.ID
		w.last, w.readable = t, time.Now()
		return nil
	}
	if ctx.Err() != nil {
		return explain(w.op, r, context.Cause(ctx))
	}
	if !absent(err) && !judge(err).retry {
		return explain(w.op, r, err)
	}
	limit := w.d.opts.Pace.Of(unreadable)
	if time.Since(w.readable) < limit {
		w.d.opts.Log.DebugContext(ctx, "task cannot be read", "server", w.id, "task", w.last.ID, "error", err)
		return nil
	}
	return &Error{Op: w.op, Kind: provider.ErrActionGone, Hint: "run the same command again to go on",
		Err: fmt.Errorf("%s; OVH has not shown it for %s: %w", w.last, limit, err)}
}

func (w *wait) end() error {
	if w.last.Status == "done" {
		return nil
	}
	return &Error{Op: w.op, Kind: provider.ErrActionFailed, Err: errors.New(w.last.String()), Hint: w.hint()}
}

func (w *wait) hint() string {
	switch {
	case w.last.NeedSchedule:
		return "choose a time slot for it in OVH's control panel, or cancel it there"
	case w.last.Status == "customerError":
		return "OVH says that the request cannot be done as it is"
	}
	return "look at the server's tasks in OVH's control panel, then run the same command again"
}
