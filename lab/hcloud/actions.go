package hcloud

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"popfleet/lab/faults"
)

// action is something that takes its time. While it runs, the servers it names are locked.
type action struct {
	ID        int64      `json:"id"`
	Command   string     `json:"command"`
	Status    string     `json:"status"` // running | success | error
	Started   time.Time  `json:"started"`
	Finished  *time.Time `json:"finished"`
	Resources []resource `json:"resources"`
	Error     *actionErr `json:"error"`
	Hidden    bool       `json:"hidden"`    // a fault: nobody finds it again
	Foreseen  bool       `json:"foreseen"`  // a fault: it will end in error and has no effect
	WaitsFor  int64      `json:"waits_for"` // starts when this one has ended
	Argument  string     `json:"argument"`  // what its effect needs to know, so that a restarted lab can go on
}

type resource struct {
	ID   int64  `json:"id"`
	Type string `json:"type"`
}

type actionErr struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type wireAction struct {
	ID        int64      `json:"id"`
	Command   string     `json:"command"`
	Status    string     `json:"status"`
	Progress  int        `json:"progress"`
	Started   time.Time  `json:"started"`
	Finished  *time.Time `json:"finished"`
	Resources []resource `json:"resources"`
	Error     *actionErr `json:"error"`
}

func (c *Cloud) wireAction(a *action) wireAction {
	w := wireAction{a.ID, a.Command, a.Status, 100, a.Started, a.Finished, a.Resources, a.Error}
	if a.Status == "running" {
		w.Progress = 0
		if d := c.opt.ActionTime(a.Command); d > 0 && a.WaitsFor == 0 {
			w.Progress = min(99, int(100*time.Since(a.Started)/d))
		}
	}
	return w
}

func serverRes(id int64) resource { return resource{id, "server"} }

// begin starts an action; c.mu is held. fault is what the call that began it was struck by, or nil.
func (c *Cloud) begin(command, argument string, after *action, fault *faults.Fault, res ...resource) *action {
	a := &action{
		ID: c.state.nextID(), Command: command, Status: "running", Started: time.Now().UTC(),
		Resources: res, Argument: argument,
	}
	if fault != nil {
		a.Hidden = fault.Kind == faults.ActionMissing
		a.Foreseen = fault.Kind == faults.ActionError
	}
	if after != nil {
		a.WaitsFor = after.ID
	}
	c.state.Actions[a.ID] = a
	c.spawn(func() { c.run(a) })
	return a
}

// run carries an action to its end. What it does to a machine happens at its beginning, what it changes in the books
// at its end.
func (c *Cloud) run(a *action) {
	ctx := c.life
	if !c.predecessorEnded(ctx, a) {
		return
	}
	var err error
	if !a.Foreseen {
		err = c.effect(ctx, a)
	}
	if !pause(ctx, c.opt.ActionTime(a.Command)) {
		return // the lab goes down; the next one goes on with it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.save()
	a.Finished = ptr(time.Now().UTC())
	switch {
	case a.Foreseen:
		a.Status, a.Error = "error", &actionErr{"action_failed", "action failed"}
		c.undone(a)
	case err != nil:
		a.Status, a.Error = "error", &actionErr{"server_error", err.Error()}
		c.opt.Log.Error("action failed", "command", a.Command, "action", a.ID, "error", err)
		c.undone(a)
	default:
		a.Status = "success"
		c.settle(a)
	}
}

func (c *Cloud) predecessorEnded(ctx context.Context, a *action) bool {
	for {
		c.mu.Lock()
		before := c.state.Actions[a.WaitsFor]
		ended := before == nil || before.Status != "running"
		if ended && a.WaitsFor != 0 {
			a.WaitsFor, a.Started = 0, time.Now().UTC()
			if before != nil && before.Status == "error" {
				a.Foreseen = true
			}
		}
		c.mu.Unlock()
		if ended {
			return true
		}
		if !pause(ctx, 2*time.Millisecond) {
			return false
		}
	}
}

// running says whether an action on this server is under way; c.mu is held.
func (c *Cloud) running(server int64) bool {
	for _, a := range c.state.Actions {
		if a.Status == "running" && locks(a.Command) && slices.Contains(a.Resources, serverRes(server)) {
			return true
		}
	}
	return false
}

// locks says whether an action of this command keeps others off its server.
func locks(command string) bool {
	switch command {
	case "apply_firewall", "remove_firewall", "set_firewall_rules", "change_dns_ptr", "change_protection":
		return false
	}
	return true
}

func (c *Cloud) getAction(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.state.Actions[r.id()]
	if a == nil || a.Hidden {
		return nil, notFound("action", r.id())
	}
	return map[string]any{"action": c.wireAction(a)}, nil
}

// listActions needs ids: listing all actions was removed from the API on 2025-01-30.
func (c *Cloud) listActions(r *request) (any, error) {
	ids := r.query["id"]
	if len(ids) == 0 {
		return nil, fail(http.StatusGone, "deprecated_api_endpoint", "listing all actions was removed, ids are needed")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*action
	for _, s := range ids {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, invalid(field("id", "%q is not a number", s))
		}
		if a := c.state.Actions[n]; a != nil && !a.Hidden {
			found = append(found, a)
		}
	}
	return list(r, "actions", found, nil, func(a *action) string { return "" }, c.wireAction)
}

// actionsOf lists the actions of one resource, newest last unless sorted otherwise.
func (c *Cloud) actionsOf(r *request, res resource) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*action
	for _, a := range byID(c.state.Actions) {
		wanted := len(r.query["status"]) == 0 || slices.Contains(r.query["status"], a.Status)
		if wanted && !a.Hidden && slices.Contains(a.Resources, res) {
			found = append(found, a)
		}
	}
	slices.SortStableFunc(found, func(x, y *action) int { return cmp.Compare(x.ID, y.ID) })
	return list(r, "actions", found, nil, func(a *action) string { return "" }, c.wireAction)
}

func (c *Cloud) serverActions(r *request) (any, error) {
	if _, err := c.lookup(r.id()); err != nil {
		return nil, err
	}
	return c.actionsOf(r, serverRes(r.id()))
}

func (c *Cloud) serverAction(r *request) (any, error) {
	n, _ := strconv.ParseInt(r.PathValue("action"), 10, 64) // the route takes digits only
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.state.Actions[n]
	if a == nil || a.Hidden || !slices.Contains(a.Resources, serverRes(r.id())) {
		return nil, notFound("action", n)
	}
	return map[string]any{"action": c.wireAction(a)}, nil
}

// lookup finds a server for a call that only reads it.
func (c *Cloud) lookup(id int64) (*server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.state.Servers[id]; s != nil {
		return s, nil
	}
	return nil, notFound("server", id)
}
