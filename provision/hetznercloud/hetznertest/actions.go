package hetznertest

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// act starts one action on an object; mu is held.
func (a *API) act(w http.ResponseWriter, collection, name string, id int64, o, body Object) {
	if collection == "firewalls" {
		o["rules"] = body["rules"]
		write(w, http.StatusCreated, Object{"actions": []any{a.start("set_firewall_rules", 0, func() {})}})
		return
	}
	if a.refuseLocked(w, o) {
		return
	}
	answer := Object{}
	var done func()
	switch name {
	case "enable_rescue":
		answer["root_password"] = "not-used"
		done = func() { o["rescue_enabled"], a.rescued[id] = true, body["ssh_keys"].([]any) }
	case "disable_rescue":
		done = func() { o["rescue_enabled"] = false }
	case "poweron", "reset", "reboot":
		done = func() { a.boot(o, id) }
	case "poweroff":
		done = func() { o["status"] = "off" }
	case "change_dns_ptr":
		done = func() { changeReverse(o, body) }
	default:
		Reply(w, http.StatusNotFound, "not_found")
		return
	}
	o["locked"] = true
	answer["action"] = a.start(name, id, func() { o["locked"] = false; done() })
	write(w, http.StatusCreated, answer)
}

// boot consumes a one-shot rescue.
func (a *API) boot(o Object, id int64) {
	o["status"] = "running"
	o["booted"] = "disk"
	if o["rescue_enabled"] == true {
		o["booted"], o["rescue_enabled"] = "rescue", false
	}
}

func changeReverse(o, body Object) {
	net := o["public_net"].(Object)
	v4 := net["ipv4"].(Object)
	if v4["ip"] == body["ip"] {
		v4["dns_ptr"] = body["dns_ptr"]
		return
	}
	v6 := net["ipv6"].(Object)
	if body["dns_ptr"] == nil {
		v6["dns_ptr"] = []any{}
		return
	}
	v6["dns_ptr"] = []any{Object{"ip": body["ip"], "dns_ptr": body["dns_ptr"]}}
}

// start begins an action; mu is held.
func (a *API) start(command string, server int64, done func()) Object {
	a.nextID++
	act := &action{command: command, server: server, left: a.polls(), done: done, started: time.Now()}
	if a.ActionError != nil {
		act.code = a.ActionError(command)
	}
	a.actions[a.nextID] = act
	if act.left == 0 {
		a.end(act)
	}
	return act.object(a.nextID)
}

func (a *API) end(act *action) {
	if act.code == "" {
		act.done()
		return
	}
	if o := a.objects["servers"][act.server]; o != nil && act.command != "create_server" {
		o["locked"] = false
	}
	if act.command == "create_server" {
		delete(a.objects["servers"], act.server)
	}
}

func (act *action) object(id int64) Object {
	o := Object{"id": id, "command": act.command, "status": "running", "progress": 50, "started": act.started.UTC().Format(time.RFC3339),
		"finished": nil, "resources": []any{Object{"id": act.server, "type": "server"}}, "error": nil}
	if act.left > 0 {
		return o
	}
	o["status"], o["progress"], o["finished"] = "success", 100, o["started"]
	if act.code != "" {
		o["status"], o["error"] = "error", Object{"code": act.code, "message": "test: " + act.code}
	}
	return o
}

// listActions counts as a poll for each action that is asked for; mu is held.
func (a *API) listActions(w http.ResponseWriter, r *http.Request) {
	var out []Object
	for _, text := range r.URL.Query()["id"] {
		id, _ := strconv.ParseInt(text, 10, 64)
		act := a.actions[id]
		if act == nil {
			continue
		}
		a.advance(act)
		out = append(out, act.object(id))
	}
	a.page(w, r, "actions", out)
}

func (a *API) advance(act *action) {
	if act.left == 0 {
		return
	}
	if act.left--; act.left == 0 {
		a.end(act)
	}
}

// tick lets time go by for the actions of a server that is looked at; mu is held.
func (a *API) tick(server int64) {
	for _, id := range sortedIDs(a.actions) {
		if act := a.actions[id]; act.server == server {
			a.advance(act)
		}
	}
}

func (a *API) actionsOf(w http.ResponseWriter, server int64) {
	out := []Object{}
	for _, id := range sortedIDs(a.actions) {
		if a.actions[id].server == server {
			out = append(out, a.actions[id].object(id))
		}
	}
	write(w, http.StatusOK, Object{"actions": out, "meta": Object{"pagination": Object{"page": 1, "per_page": 50,
		"previous_page": nil, "next_page": nil, "last_page": 1, "total_entries": len(out)}}})
}

// ForgetActions makes the API lose every action that runs, after taking effect.
func (a *API) ForgetActions() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range slices.Clone(sortedIDs(a.actions)) {
		if act := a.actions[id]; act.left > 0 {
			act.left = 0
			a.end(act)
		}
		delete(a.actions, id)
	}
}
