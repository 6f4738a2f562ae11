package robot

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

// object is a JSON object of an answer.
type object = map[string]any

// request is one admitted call.
type request struct {
	*http.Request
	call  call
	query url.Values
	form  url.Values
	fault *faults.Fault // strikes after the call was accepted: reply-lost, task-error, task-stuck, no-ipv4
}

func (q *request) number() int {
	n, err := strconv.Atoi(q.PathValue("number"))
	if err != nil {
		return -1
	}
	return n
}

func (q *request) struck(k faults.Kind) bool { return q.fault != nil && q.fault.Kind == k }

// reply is an answer with a status other than 200, or with no body at all.
type reply struct {
	status int
	body   any
}

// call is one route of the web service.
type call struct {
	name    string // what faults call it: activate_rescue
	method  string
	path    string // /boot/{number}/rescue
	class   string // whose request limit it uses
	failure string // the code of its own internal error; "" is INTERNAL_ERROR
	query   form
	form    form
	do      func(r *Robot, q *request) (any, error)
}

// names are all by which a fault can name the call.
func (k call) names() []string { return []string{k.name, k.method + " " + k.path} }

func (r *Robot) serve(w http.ResponseWriter, hr *http.Request) {
	now := time.Now()
	if r.guard.isBlocked(source(hr), now) {
		write(w, nil, blocked())
		return
	}
	if !r.guard.admit(hr, now) {
		write(w, nil, unauthorized())
		return
	}
	k, ok := route(hr)
	if !ok {
		write(w, nil, notFound("NOT_FOUND", "%s %s: the lab does not simulate this call", hr.Method, hr.URL.Path))
		return
	}
	if r.opt.OrderingOff && strings.HasPrefix(k.class, "order") {
		write(w, nil, unauthorized()) // as measured on an account that did not activate it; the password counts as right
		return
	}
	if e := r.guard.spend(k.class, now); e != nil {
		write(w, nil, e)
		return
	}
	q, err := read(w, hr, k)
	if err != nil {
		write(w, nil, err)
		return
	}
	r.act(w, q)
}

// read takes the call's parameters from the address and the body.
func read(w http.ResponseWriter, hr *http.Request, k call) (*request, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, hr.Body, maxBodyBytes))
	if err != nil {
		return nil, invalid("body")
	}
	q := &request{Request: hr, call: k}
	var e *apiError
	if q.query, e = k.query.sort(hr.URL.Query()); e != nil {
		return nil, e
	}
	if q.form, e = k.form.parse(hr.Header.Get("Content-Type"), body); e != nil {
		return nil, e
	}
	return q, nil
}

// act does the call, with the fault that is set for it, if any.
func (r *Robot) act(w http.ResponseWriter, q *request) {
	r.interfere(q)
	if f, ok := r.opt.Faults.Take(r.occasion(q), apiKinds...); ok {
		r.opt.Log.Info("fault strikes", "kind", string(f.Kind), "call", q.call.name, "fault", f.ID)
		if !pause(q.Context(), f.Delay.D()) {
			return
		}
		if r.strike(w, q, f) {
			return
		}
	}
	v, err := q.call.do(r, q)
	if q.struck(faults.ReplyLost) {
		panic(http.ErrAbortHandler) // cuts the connection without an answer; net/http knows it and does not log
	}
	write(w, v, err)
}

// occasion says what the call is about, so that a fault for one machine finds it.
func (r *Robot) occasion(q *request) faults.Occasion {
	o := faults.Occasion{Layer: faults.API, Provider: machine.HetznerRobot, Call: q.call.names()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.meant(q); s != nil {
		o.Machine = s.names()
	}
	return o
}

// meant is the server that a call names by number or address, nil when it names none; r.mu is held.
func (r *Robot) meant(q *request) *server {
	if q.PathValue("number") != "" {
		return r.state.Servers[q.number()]
	}
	if q.PathValue("ip") != "" {
		s, _, _ := r.byAddress(q.PathValue("ip"))
		return s
	}
	return nil
}

func write(w http.ResponseWriter, v any, err error) {
	status, body := http.StatusOK, v
	var api *apiError
	switch {
	case errors.As(err, &api):
		status, body = api.Status, api
	case err != nil:
		e := fail(http.StatusInternalServerError, "INTERNAL_ERROR", "%v", err)
		status, body = e.Status, e
	default:
		if rep, ok := v.(reply); ok {
			status, body = rep.status, rep.body
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body) // the client went away: nobody is left to tell
	}
}

// blocked is what a blocked source sees. The documentation says only that it is blocked; the code is ours.
func blocked() *apiError { return fail(http.StatusForbidden, "FORBIDDEN", "IP address is blocked") }

// route finds the call. {number} takes digits only: naming a server by its address is deprecated.
func route(hr *http.Request) (call, bool) {
	got := strings.Split(strings.TrimPrefix(hr.URL.Path, "/"), "/")
	for _, k := range calls() {
		if k.method == hr.Method && fits(k.path, got, hr) {
			return k, true
		}
	}
	return call{}, false
}

func fits(pattern string, got []string, hr *http.Request) bool {
	want := strings.Split(strings.TrimPrefix(pattern, "/"), "/")
	if len(want) != len(got) {
		return false
	}
	for i, w := range want {
		digits := strings.Trim(got[i], "0123456789") == ""
		switch {
		case w == "{number}" && (got[i] == "" || !digits):
			return false
		case strings.HasPrefix(w, "{") && got[i] == "":
			return false
		case !strings.HasPrefix(w, "{") && w != got[i]:
			return false
		}
	}
	for i, w := range want {
		if strings.HasPrefix(w, "{") {
			hr.SetPathValue(strings.Trim(w, "{}"), got[i])
		}
	}
	return true
}
