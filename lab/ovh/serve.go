package ovh

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"popfleet/internal/strictjson"
	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

const maxBodyBytes = 1 << 20

// request is one call.
type request struct {
	*http.Request
	call  call
	below string // the path below /1.0, as it was written
	args  map[string]string
	query url.Values
	body  []byte
	now   time.Time     // the provider's clock when it came
	fault *faults.Fault // strikes after the call was accepted
}

// id reads a number from the path; what is no number is found nowhere.
func (r *request) id(name string) int64 {
	n, err := strconv.ParseInt(r.args[name], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// decode reads the body strictly: what the provider would ignore, the lab refuses, since it is a mistake of ours.
func (r *request) decode(v any) error {
	if len(r.body) == 0 {
		return bad("[body] Missing body")
	}
	if err := strictjson.Decode(r.body, v); err != nil {
		return bad("[body] %v", err)
	}
	return nil
}

type handler func(o *OVH, r *request) (any, error)

// call is one route of the API.
type call struct {
	name    string // what faults call it: reboot
	method  string
	path    string   // below /1.0: /dedicated/server/{serviceName}/reboot
	query   []string // parameters it knows
	open    bool     // answers without credentials too
	handler handler
}

func (k call) names() []string { return []string{k.name, k.method + " " + k.path} }

func (o *OVH) serve(w http.ResponseWriter, r *http.Request) {
	id := make([]byte, 12)
	rand.Read(id)
	w.Header().Set("X-Ovh-QueryID", o.opt.Region+".ext-1."+hex.EncodeToString(id))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		write(w, nil, fail(http.StatusRequestEntityTooLarge, "Client::PayloadTooLarge", "body: %v", err))
		return
	}
	req := &request{Request: r, body: body, query: r.URL.Query(), now: o.now()}
	if !o.route(req) {
		write(w, nil, notFound("%s %s: the lab does not simulate this call", r.Method, r.URL.Path))
		return
	}
	if err := o.check(req); err != nil {
		write(w, nil, err)
		return
	}
	o.act(w, req)
}

// check holds credentials and query parameters against the call.
func (o *OVH) check(r *request) error {
	if err := o.astray(r); err != nil {
		return err
	}
	if err := o.authenticate(r); err != nil {
		return err
	}
	for name := range r.query {
		if !slices.Contains(r.call.query, name) {
			return bad("[query.%s] Unknown parameter", name)
		}
	}
	return nil
}

// act does the call, with the fault that is set for it, if any.
func (o *OVH) act(w http.ResponseWriter, r *request) {
	if f, ok := o.opt.Faults.Take(o.occasion(r), strikes...); ok {
		o.opt.Log.Info("fault strikes", "kind", string(f.Kind), "call", r.call.name, "fault", f.ID)
		if !pause(r.Context(), f.Delay.D()) {
			return
		}
		if o.strike(w, r, f) {
			return
		}
	}
	v, err := r.call.handler(o, r)
	if r.fault != nil && r.fault.Kind == faults.ReplyLost {
		panic(http.ErrAbortHandler) // cuts the connection without an answer; net/http knows it and does not log
	}
	write(w, v, err)
}

// occasion says what the call is about, so that a fault for one machine finds it.
func (o *OVH) occasion(r *request) faults.Occasion {
	at := faults.Occasion{Layer: faults.API, Provider: machine.OVH, Call: r.call.names()}
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.about(r); s != nil {
		at.Machine = s.names()
	}
	return at
}

// about is the server that the path names, by service or by address; nil when it names none. o.mu is held.
func (o *OVH) about(r *request) *server {
	if name := r.args["serviceName"]; name != "" {
		return o.state.named(name)
	}
	if block := r.args["ip"]; block != "" {
		s, _ := o.state.owning(block)
		return s
	}
	return nil
}

// onServer makes a handler of what is done to one server: with the books open, saved when it may have written in them.
func onServer(do func(o *OVH, r *request, s *server) (any, error)) handler {
	return func(o *OVH, r *request) (any, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		s, err := o.lookup(r.args["serviceName"])
		if err != nil {
			return nil, err
		}
		return o.booked(r, func() (any, error) { return do(o, r, s) })
	}
}

// onBooks is onServer for calls that are about no server.
func onBooks(do func(o *OVH, r *request) (any, error)) handler {
	return func(o *OVH, r *request) (any, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.booked(r, func() (any, error) { return do(o, r) })
	}
}

func (o *OVH) booked(r *request, do func() (any, error)) (any, error) {
	v, err := do()
	if r.Method != http.MethodGet {
		o.save()
	}
	return v, err
}

// write answers; what has no answer is null, as the provider's are.
func write(w http.ResponseWriter, v any, err error) {
	status, body := http.StatusOK, v
	var api *apiError
	switch {
	case errors.As(err, &api):
		status, body = api.status, api
	case err != nil:
		status, body = http.StatusInternalServerError, fail(0, "Server::InternalServerError", "%v", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away: nobody is left to tell
}

// route finds the call and reads the path's values. Segments are split before they are unescaped, since an address
// block holds a slash.
func (o *OVH) route(r *request) bool {
	path := r.URL.EscapedPath()
	below, ok := strings.CutPrefix(path, "/1.0/")
	if !ok {
		if below, ok = strings.CutPrefix(path, "/v1/"); !ok {
			return false
		}
	}
	r.below = "/" + below
	got := strings.Split(below, "/")
	for i := range got {
		s, err := url.PathUnescape(got[i])
		if err != nil {
			return false
		}
		got[i] = s
	}
	for _, k := range calls() {
		if args, ok := fits(k.path, got); ok && k.method == r.Method {
			r.call, r.args = k, args
			return true
		}
	}
	return false
}

func fits(pattern string, got []string) (map[string]string, bool) {
	want := strings.Split(strings.Trim(pattern, "/"), "/")
	if len(want) != len(got) {
		return nil, false
	}
	args := map[string]string{}
	for i, w := range want {
		switch {
		case strings.HasPrefix(w, "{") && got[i] != "":
			args[strings.Trim(w, "{}")] = got[i]
		case w != got[i]:
			return nil, false
		}
	}
	return args, true
}
