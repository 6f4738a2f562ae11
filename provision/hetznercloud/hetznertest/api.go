// Package hetznertest is a small Hetzner Cloud API in memory, for the tests of the driver and of the stack. It answers
// the calls that they make with the provider's shapes and its rules that matter to them: names are unique, a server is
// locked while an action runs on it, rescue is one-shot. It boots nothing; the lab has machines. It is not for use
// outside tests.
package hetznertest

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Object is any object of the API, as it goes over the wire.
type Object = map[string]any

// API is the fake. Its exported fields may be set before the first call, and by [API.Change] at any time.
type API struct {
	URL   string
	Token string
	// Polls is how many times an action, or its server, is looked at before it has succeeded; it is locked meanwhile.
	Polls int
	// Before may answer a request itself, and says so; After sees what was answered and may drop it.
	Before func(w http.ResponseWriter, r *http.Request) (handled bool)
	After  func(r *http.Request) (dropReply bool)
	// ActionError makes the next actions with this command end in error.
	ActionError func(command string) (code string)

	srv *httptest.Server

	changing sync.RWMutex // of the fields above

	mu       sync.Mutex
	nextID   int64
	objects  map[string]map[int64]Object // by collection; guarded by mu
	actions  map[int64]*action           // guarded by mu
	requests []string                    // "POST /servers"; guarded by mu
	created  map[string]int              // guarded by mu
	rescued  map[int64][]any             // ssh keys of an enabled rescue; guarded by mu
}

// Change sets exported fields while calls may be under way.
func (a *API) Change(set func(*API)) {
	a.changing.Lock()
	defer a.changing.Unlock()
	set(a)
}

func (a *API) hooks() (before func(http.ResponseWriter, *http.Request) bool, after func(*http.Request) bool) {
	a.changing.RLock()
	defer a.changing.RUnlock()
	return a.Before, a.After
}

func (a *API) polls() int {
	a.changing.RLock()
	defer a.changing.RUnlock()
	return a.Polls
}

type action struct {
	command string
	server  int64
	left    int
	code    string
	done    func()
	started time.Time
}

// New starts the API on loopback; Close ends it.
func New() *API {
	a := &API{Token: "test-token", nextID: 100, objects: map[string]map[int64]Object{}, actions: map[int64]*action{},
		created: map[string]int{}, rescued: map[int64][]any{}}
	a.srv = httptest.NewServer(http.HandlerFunc(a.serve))
	a.URL = a.srv.URL + "/v1"
	return a
}

// Close ends the API and cuts connections that hang.
func (a *API) Close() {
	a.srv.CloseClientConnections()
	a.srv.Close()
}

// Created counts what was ever created in a collection, "servers".
func (a *API) Created(collection string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.created[collection]
}

// Count is how many objects a collection holds now.
func (a *API) Count(collection string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.objects[collection])
}

// Requests lists what was asked, "POST /servers", oldest first.
func (a *API) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// Edit changes objects behind everyone's back.
func (a *API) Edit(f func(objects map[string]map[int64]Object)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a.objects)
}

// Reply writes an error body with the provider's shape.
func Reply(w http.ResponseWriter, status int, code string) {
	write(w, status, Object{"error": Object{"code": code, "message": "test: " + code, "details": Object{}}})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1")
	a.mu.Lock()
	a.requests = append(a.requests, r.Method+" "+path)
	a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+a.Token {
		Reply(w, http.StatusUnauthorized, "unauthorized")
		return
	}
	before, after := a.hooks()
	if before != nil && before(w, r) {
		return
	}
	rec := httptest.NewRecorder()
	a.route(rec, r, strings.Split(strings.Trim(path, "/"), "/"))
	if after != nil && after(r) {
		panic(http.ErrAbortHandler) // the connection is cut: the act happened, the reply is lost
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func (a *API) route(w http.ResponseWriter, r *http.Request, path []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var body Object
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch collection := path[0]; {
	case collection == "actions":
		a.listActions(w, r)
	case len(path) == 1 && r.Method == http.MethodPost:
		a.create(w, collection, body)
	case len(path) == 1:
		a.list(w, r, collection)
	default:
		a.one(w, r, path, body)
	}
}

func (a *API) one(w http.ResponseWriter, r *http.Request, path []string, body Object) {
	id, _ := strconv.ParseInt(path[1], 10, 64)
	a.tick(id)
	o := a.objects[path[0]][id]
	switch {
	case o == nil:
		Reply(w, http.StatusNotFound, "not_found")
	case len(path) == 4 && r.Method == http.MethodPost:
		a.act(w, path[0], path[3], id, o, body)
	case len(path) == 3:
		a.actionsOf(w, id)
	case r.Method == http.MethodPut:
		for k, v := range body {
			o[k] = v
		}
		write(w, http.StatusOK, Object{singular(path[0]): o})
	case r.Method == http.MethodDelete:
		a.remove(w, path[0], id, o)
	default:
		write(w, http.StatusOK, Object{singular(path[0]): o})
	}
}

func (a *API) create(w http.ResponseWriter, collection string, body Object) {
	for _, o := range a.objects[collection] {
		if o["name"] == body["name"] || body["public_key"] != nil && o["public_key"] == body["public_key"] {
			Reply(w, http.StatusConflict, "uniqueness_error")
			return
		}
	}
	a.nextID++
	id := a.nextID
	o := Object{"id": id, "created": time.Now().UTC().Format(time.RFC3339)}
	for k, v := range body {
		o[k] = v
	}
	if o["labels"] == nil {
		o["labels"] = Object{}
	}
	if a.objects[collection] == nil {
		a.objects[collection] = map[int64]Object{}
	}
	a.objects[collection][id] = o
	a.created[collection]++
	answer := Object{singular(collection): o}
	switch collection {
	case "servers":
		a.fillServer(o, id, body)
		answer["action"] = a.start("create_server", id, func() { o["status"], o["locked"] = "off", false })
		answer["next_actions"], answer["root_password"] = []any{}, nil
	case "ssh_keys":
		o["fingerprint"] = fingerprint(fmt.Sprint(body["public_key"]))
	case "firewalls":
		o["applied_to"], answer["actions"] = []any{}, []any{}
	case "placement_groups":
		o["servers"], answer["action"] = []any{}, nil
	case "networks":
		for _, s := range o["subnets"].([]any) {
			s.(Object)["gateway"] = "10.77.0.1"
		}
		o["servers"], o["routes"], o["protection"] = []any{}, []any{}, Object{"delete": false}
	}
	write(w, http.StatusCreated, answer)
}

func (a *API) fillServer(o Object, id int64, body Object) {
	n := id - 100
	o["status"], o["locked"], o["rescue_enabled"] = "initializing", true, false
	o["server_type"] = Object{"id": 1, "name": body["server_type"]}
	o["location"] = Object{"id": 1, "name": body["location"]}
	o["image"], o["placement_group"] = nil, nil
	o["public_net"] = Object{
		"ipv4":         Object{"id": id, "ip": fmt.Sprintf("198.18.%d.%d", n/250, n%250+1), "dns_ptr": "default", "blocked": false},
		"ipv6":         Object{"id": id, "ip": fmt.Sprintf("2001:db8:1:%x::/64", n), "dns_ptr": []any{}, "blocked": false},
		"floating_ips": []any{}, "firewalls": []any{},
	}
	o["protection"], o["volumes"], o["load_balancers"], o["private_net"] = Object{"delete": false, "rebuild": false}, []any{}, []any{}, []any{}
}

func (a *API) list(w http.ResponseWriter, r *http.Request, collection string) {
	var out []Object
	q := r.URL.Query()
	for _, id := range sortedIDs(a.objects[collection]) {
		a.tick(id)
		o := a.objects[collection][id]
		if o == nil {
			continue // its delete just came to its end
		}
		if name := q.Get("name"); name != "" && o["name"] != name {
			continue
		}
		if fp := q.Get("fingerprint"); fp != "" && o["fingerprint"] != fp {
			continue
		}
		if selected(o, q.Get("label_selector")) {
			out = append(out, o)
		}
	}
	a.page(w, r, collection, out)
}

func (a *API) page(w http.ResponseWriter, r *http.Request, collection string, all []Object) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	per, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	page, per = max(page, 1), max(per, 25)
	last := max((len(all)+per-1)/per, 1)
	from, to := min((page-1)*per, len(all)), min(page*per, len(all))
	meta := Object{"page": page, "per_page": per, "previous_page": nil, "next_page": nil, "last_page": last, "total_entries": len(all)}
	if page < last {
		meta["next_page"] = page + 1
	}
	if all == nil {
		all = []Object{}
	}
	write(w, http.StatusOK, Object{collection: all[from:to], "meta": Object{"pagination": meta}})
}

func (a *API) remove(w http.ResponseWriter, collection string, id int64, o Object) {
	if collection != "servers" {
		delete(a.objects[collection], id)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if a.refuseLocked(w, o) {
		return
	}
	o["status"] = "deleting"
	write(w, http.StatusOK, Object{"action": a.start("delete_server", id, func() { delete(a.objects[collection], id) })})
}

func (a *API) refuseLocked(w http.ResponseWriter, o Object) bool {
	if o["locked"] == true {
		Reply(w, http.StatusLocked, "locked")
		return true
	}
	return false
}

func selected(o Object, selector string) bool {
	if selector == "" {
		return true
	}
	labels, _ := o["labels"].(Object)
	for term := range strings.SplitSeq(selector, ",") {
		k, v, _ := strings.Cut(term, "=")
		if labels[k] != v {
			return false
		}
	}
	return true
}

func singular(collection string) string { return strings.TrimSuffix(collection, "s") }

func sortedIDs[V any](m map[int64]V) []int64 {
	ids := make([]int64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// fingerprint is the legacy MD5 form of an authorized_keys line.
func fingerprint(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return ""
	}
	raw, _ := base64.StdEncoding.DecodeString(fields[1])
	sum := md5.Sum(raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02x", b)
	}
	return strings.Join(parts, ":")
}
