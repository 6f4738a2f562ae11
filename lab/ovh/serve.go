package ovh

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh/api"
)

const maxBodyBytes = 1 << 20

// request is one call.
type request struct {
	api.Request
	call  call
	below string        // the path below /1.0, as it was written
	now   time.Time     // the provider's clock when it came
	fault *faults.Fault // strikes after the call was accepted
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
		api.Answer(w, nil, api.Fail(http.StatusRequestEntityTooLarge, "Client::PayloadTooLarge", "body: %v", err))
		return
	}
	req := &request{Request: api.Request{Request: r, Raw: body, Query: r.URL.Query()}, now: o.now()}
	if !o.route(req) {
		api.Answer(w, nil, api.NotFound("%s %s: the lab does not simulate this call", r.Method, r.URL.Path))
		return
	}
	if err := o.check(req); err != nil {
		api.Answer(w, nil, err)
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
	for name := range r.Query {
		if !slices.Contains(r.call.query, name) {
			return api.Bad("[query.%s] Unknown parameter", name)
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
	api.Answer(w, v, err)
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
	if name := r.Args["serviceName"]; name != "" {
		return o.state.named(name)
	}
	if block := r.Args["ip"]; block != "" {
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
		s, err := o.lookup(r.Args["serviceName"])
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
			r.call, r.Args = k, args
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
