package hcloud

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"popfleet/internal/strictjson"
	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

const maxBodyBytes = 1 << 20

// request is one authenticated call.
type request struct {
	*http.Request
	call  call
	query url.Values
	body  []byte
	fault *faults.Fault // strikes after the call was accepted: action-error, action-missing, no-ipv4
	links *string       // Link header of a paginated answer
}

func (r *request) id() int64 {
	n, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// decode reads the body strictly: what the provider would ignore, the lab refuses, since it is a mistake of ours.
func (r *request) decode(v any) error {
	if len(r.body) == 0 {
		return nil
	}
	if err := strictjson.Decode(r.body, v); err != nil {
		e := fail(http.StatusBadRequest, "json_error", "body: %v", err)
		return e
	}
	return nil
}

// reply is an answer with a status other than 200.
type reply struct {
	status int
	body   any
}

// call is one route of the API.
type call struct {
	name    string // what faults call it: create_server
	method  string
	path    string // below /v1: /servers/{id}
	handler func(c *Cloud, r *request) (any, error)
}

// names are all by which a fault can name the call: create_server, POST /servers, and for actions the last word of the
// route too: reset, poweron.
func (k call) names() []string {
	out := []string{k.name, k.method + " " + k.path}
	if i := strings.LastIndex(k.path, "/actions/"); i >= 0 && !strings.HasPrefix(k.path[i+len("/actions/"):], "{") {
		out = append(out, k.path[i+len("/actions/"):])
	}
	return out
}

func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	id := make([]byte, 8)
	rand.Read(id)
	w.Header().Set("X-Correlation-Id", hex.EncodeToString(id))
	if !c.authorized(r) {
		write(w, nil, fail(http.StatusUnauthorized, "unauthorized", "unable to authenticate"))
		return
	}
	if !c.rate.take(w.Header(), time.Now()) {
		write(w, nil, fail(http.StatusTooManyRequests, "rate_limit_exceeded", "limit of %d requests per hour reached", c.opt.RatePerHour))
		return
	}
	k, ok := c.route(r)
	if !ok {
		write(w, nil, fail(http.StatusNotFound, "not_found", "%s %s: the lab does not simulate this call", r.Method, r.URL.Path))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		write(w, nil, fail(http.StatusRequestEntityTooLarge, "invalid_input", "body: %v", err))
		return
	}
	req := &request{Request: r, call: k, query: r.URL.Query(), body: body, links: new(string)}
	c.act(w, req)
}

func (c *Cloud) authorized(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(token), []byte(c.opt.Token)) == 1
}

// act does the call, with the fault that is set for it, if any.
func (c *Cloud) act(w http.ResponseWriter, r *request) {
	if f, ok := c.opt.Faults.Take(c.occasion(r), apiKinds...); ok {
		c.opt.Log.Info("fault strikes", "kind", string(f.Kind), "call", r.call.name, "fault", f.ID)
		if !pause(r.Context(), f.Delay.D()) {
			return
		}
		if c.strike(w, r, f) {
			return
		}
	}
	v, err := r.call.handler(c, r)
	if *r.links != "" {
		w.Header().Set("Link", *r.links)
	}
	if r.fault != nil && r.fault.Kind == faults.ReplyLost {
		panic(http.ErrAbortHandler) // cuts the connection without an answer; net/http knows it and does not log
	}
	write(w, v, err)
}

// occasion says what the call is about, so that a fault for one machine finds it. A create carries the name in its body.
func (c *Cloud) occasion(r *request) faults.Occasion {
	o := faults.Occasion{Layer: faults.API, Provider: machine.HetznerCloud, Call: r.call.names()}
	if r.call.name == "create_server" {
		var b struct{ Name string }
		_ = json.Unmarshal(r.body, &b) // a bad body is told by the handler
		o.Machine = []string{b.Name}
		return o
	}
	if strings.HasPrefix(r.call.path, "/servers/{id}") {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s := c.state.Servers[r.id()]; s != nil {
			o.Machine = c.info(s).Names()
		}
	}
	return o
}

func write(w http.ResponseWriter, v any, err error) {
	status, body := http.StatusOK, v
	var api *apiError
	switch {
	case errors.As(err, &api):
		status, body = api.status, map[string]any{"error": api}
	case err != nil:
		status, body = http.StatusInternalServerError, map[string]any{"error": fail(0, "server_error", "%v", err)}
	default:
		if rep, ok := v.(reply); ok {
			status, body = rep.status, rep.body
		}
	}
	if body == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away: nobody is left to tell
}
