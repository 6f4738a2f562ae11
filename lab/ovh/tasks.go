package ovh

import (
	"context"
	"slices"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh/api"
)

// task is something the provider does to a server: init, todo, doing, and one of the ends.
type task struct {
	ID           int64      `json:"id"`
	Service      string     `json:"service"`
	Function     string     `json:"function"`
	Status       string     `json:"status"`
	Comment      string     `json:"comment"`
	Start        time.Time  `json:"start"`
	Last         time.Time  `json:"last"`
	Done         *time.Time `json:"done"`
	Found        time.Time  `json:"found"`              // not found before: the region lags
	Lost         bool       `json:"lost"`               // a fault: never found
	End          string     `json:"end"`                // a fault: how it ends; "" is done
	Stuck        bool       `json:"stuck"`              // a fault: never leaves doing
	Effect       bool       `json:"effect"`             // it does something to the machine
	NeedSchedule bool       `json:"need_schedule"`      // it stays todo until it is given a date
	Template     string     `json:"template,omitempty"` // of a reinstall
	SSHKey       string     `json:"ssh_key,omitempty"`  // likewise

	asked int
}

// wireTask is a dedicated.server.Task.
type wireTask struct {
	TaskID                int64      `json:"taskId"`
	Function              string     `json:"function"`
	Status                string     `json:"status"`
	Comment               *string    `json:"comment"`
	StartDate             time.Time  `json:"startDate"`
	LastUpdate            *time.Time `json:"lastUpdate"`
	DoneDate              *time.Time `json:"doneDate"`
	NeedSchedule          bool       `json:"needSchedule"`
	Note                  *string    `json:"note"`
	PlannedInterventionID *int64     `json:"plannedInterventionId"`
	Tags                  []string   `json:"tags"` // null in the field, which the description does not allow
	TicketReference       *string    `json:"ticketReference"`
}

func (t *task) wire() wireTask {
	return wireTask{
		TaskID: t.ID, Function: t.Function, Status: t.Status, Comment: nonEmpty(t.Comment), StartDate: seconds(t.Start),
		LastUpdate: ptr(seconds(t.Last)), DoneDate: secondsOf(t.Done), NeedSchedule: t.NeedSchedule, Tags: []string{},
	}
}

// seconds is how precise the provider's dates are.
func seconds(t time.Time) time.Time { return t.Truncate(time.Second) }

func secondsOf(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return ptr(seconds(*t))
}

func (t *task) ended() bool { return !slices.Contains([]string{"init", "todo", "doing"}, t.Status) }

// begin starts a task that acts on the machine; o.mu is held. fault is what the call that began it was struck by.
func (o *OVH) begin(s *server, function, comment string, fault *faults.Fault) *task {
	now := o.clock()
	t := &task{Service: s.Service, Function: function, Status: "init", Comment: comment, Start: now, Last: now, Effect: true}
	t.Found = now.Add(o.opt.Delay(TaskFresh))
	if fault != nil && !o.spoil(t, *fault) {
		return t // task 0: nothing was begun
	}
	t.ID = o.state.nextID()
	o.state.Tasks[t.ID] = t
	o.spawn(func() { o.run(t) })
	return t
}

// spoil writes a fault into a new task; false when no task comes into being.
func (o *OVH) spoil(t *task, f faults.Fault) bool {
	switch f.Kind {
	case faults.TaskZero:
		return false
	case faults.TaskMissing:
		wait := f.For.D()
		if wait == 0 {
			wait = max(20*o.opt.Delay(TaskFresh), 50*time.Millisecond)
		}
		t.Found = t.Start.Add(wait)
	case faults.ActionMissing:
		t.Lost = true
	case faults.TaskStuck:
		t.Stuck, t.Effect = true, f.Step == "acted"
	case faults.TaskError, faults.ActionError:
		t.End, t.Effect = "ovhError", false
		if f.Step == "customer" {
			t.End = "customerError"
		}
	}
	return true
}

// run carries a task to its end. What it does to the machine happens when doing begins.
func (o *OVH) run(t *task) {
	for o.waiting(t) {
		if !pause(o.life, o.opt.Delay(Queue)) || !o.advance(t) {
			return
		}
	}
	var err error
	if t.Effect {
		err = o.effect(o.life, t)
	}
	if t.Stuck || !pause(o.life, o.opt.Delay(t.Function)) {
		return // the lab goes down; the next one goes on with it
	}
	switch {
	case err != nil:
		o.opt.Log.Error("task failed", "function", t.Function, "task", t.ID, "error", err)
		o.end(t, "ovhError", err.Error())
	case t.End != "":
		o.end(t, t.End, "An error occurred while running "+t.Function)
	default:
		o.end(t, "done", t.Comment)
	}
}

// waiting says whether a task still has to begin. A restarted lab finds some that have begun.
func (o *OVH) waiting(t *task) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return t.Status != "doing"
}

// advance moves a task on by one step, unless it was cancelled.
func (o *OVH) advance(t *task) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch t.Status {
	case "init":
		t.Status = "todo"
	case "todo":
		if t.NeedSchedule {
			return false
		}
		t.Status = "doing"
	default:
		return false
	}
	t.Last = o.clock()
	o.save()
	return true
}

func (o *OVH) end(t *task, status, comment string) {
	o.change(func() {
		now := o.clock()
		t.Status, t.Comment, t.Last, t.Done = status, comment, now, &now
		if s := o.state.named(t.Service); s != nil && status == "done" && t.Function == Reinstall {
			o.settle(s, t)
		}
	})
}

// running finds a task of this function that has not ended; o.mu is held.
func (o *OVH) running(s *server, function string) *task {
	for _, id := range sorted(o.state.Tasks) {
		if t := o.state.Tasks[id]; t.Service == s.Service && t.Function == function && !t.ended() {
			return t
		}
	}
	return nil
}

func (o *OVH) listTasks(r *request, s *server) (any, error) {
	out := []int64{}
	function, status := r.Query.Get("function"), r.Query.Get("status")
	for _, id := range sorted(o.state.Tasks) {
		t := o.state.Tasks[id]
		wanted := (function == "" || t.Function == function) && (status == "" || t.Status == status)
		if wanted && t.Service == s.Service && !t.Lost {
			out = append(out, id)
		}
	}
	return out, nil
}

func (o *OVH) getTask(r *request, s *server) (any, error) {
	t, err := o.find(r, s)
	if err != nil {
		return nil, err
	}
	return t.wire(), nil
}

// find looks a task up. A fresh one answers 404 and 500 by turns for a while: the region that is asked has not heard of
// it yet.
func (o *OVH) find(r *request, s *server) (*task, error) {
	t := o.state.Tasks[r.ID("taskId")]
	if t == nil || t.Service != s.Service || t.Lost {
		return nil, api.NoObject("taskId", r.Args["taskId"])
	}
	if o.clock().Before(t.Found) {
		if t.asked++; t.asked%2 == 0 {
			return nil, api.Internal()
		}
		return nil, api.NoObject("taskId", r.Args["taskId"])
	}
	return t, nil
}

func (o *OVH) cancelTask(r *request, s *server) (any, error) {
	t, err := o.find(r, s)
	if err != nil {
		return nil, err
	}
	if t.Status != "init" && t.Status != "todo" {
		return nil, api.Conflict("Task %d is %s and can't be cancelled", t.ID, t.Status)
	}
	now := o.clock()
	t.Status, t.Last, t.Done = "cancelled", now, &now
	return nil, nil
}

func (o *OVH) reboot(r *request, s *server) (any, error) {
	if t := o.running(s, Reinstall); t != nil {
		return nil, api.Conflict("A task is already running on this service: %s", t.Function)
	}
	return o.begin(s, Reboot, "Reboot asked", r.fault).wire(), nil
}

// resume goes on with the tasks a former lab left; o.mu is held.
func (o *OVH) resume() {
	for _, id := range sorted(o.state.Tasks) {
		if t := o.state.Tasks[id]; !t.ended() && !t.Stuck {
			o.spawn(func() { o.run(t) })
		}
	}
}

// Unstick lets the provider's staff cancel the tasks that never end.
func (o *OVH) Unstick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.state.Tasks {
		if t.Stuck && !t.ended() {
			now := o.clock()
			t.Stuck, t.Status, t.Last, t.Done = false, "cancelled", now, &now
		}
	}
}

// effect does to the machine what the task is about. It can be repeated: a restarted lab does so.
func (o *OVH) effect(ctx context.Context, t *task) error {
	o.mu.Lock()
	s := o.state.named(t.Service)
	var m machine.Machine
	if s != nil {
		m = s.machine
	}
	o.mu.Unlock()
	if m == nil {
		return nil
	}
	switch t.Function {
	case Reboot:
		return o.hardReboot(ctx, s, m)
	case Reinstall:
		return o.reinstalled(ctx, m, t)
	}
	return nil
}
