package ovh_test

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/inventory"
	"popfleet/provision/ovh"
)

const (
	appKey      = "TDPKJdwZwAQPwKX2"
	appSecret   = "9ufkBmLaTQ9nz5yMUlg79taH0GNnzDjk"
	consumerKey = "5mBuy6SUQcRw2ZUxg0cG68BoDKpED4KY"

	service   = "ns1.ip-192-0-2.eu"
	publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjx2vSXzPz5vqgM5q4WmpCYmN0zkqQaO9M8wEyXmqGf fleet"

	diskID, rescueID, ipxeID = 1, 46371, 901
)

// object is JSON as it goes over the wire.
type object map[string]any

// fakeServer is one rented machine of the fake.
type fakeServer struct {
	fields        object
	boots         map[int64]object
	tasks         map[int64]object
	interventions map[int64]object
	ips           []string
	reverses      map[string]string
}

// fake is a small and strict OVH: it refuses requests whose signature or time is wrong, and answers in the described
// shapes. Tests change it under edit and put faults in with before and after.
type fake struct {
	*httptest.Server
	t    testing.TB
	spec *spec // nil where the descriptions are absent

	mu       sync.Mutex
	skew     time.Duration // its clock minus ours
	servers  map[string]*fakeServer
	orders   *fakeOrders
	nextTask int64
	reads    map[int64]int
	polls    int // reads of a task until it is done; negative: never
	calls    []string
	bodies   map[string]string // last body by call
	// before may answer instead; after may swallow the answer, by returning true.
	before func(w http.ResponseWriter, r *http.Request) bool
	after  func(r *http.Request) bool
}

func newFake(t testing.TB) *fake {
	f := &fake{t: t, spec: loadSpec(t), servers: map[string]*fakeServer{}, nextTask: 100, reads: map[int64]int{}, polls: 1, bodies: map[string]string{}}
	f.orders = newFakeOrders(f)
	f.add(service, "192.0.2.10")
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	t.Cleanup(f.checkRights)
	return f
}

// checkRights holds every call against the rights that an operator is told to grant.
func (f *fake) checkRights() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		call, _, _ := strings.Cut(strings.Replace(c, " /1.0", " ", 1), "?")
		ordering := strings.Contains(call, " /me") || strings.Contains(call, " /order")
		granted := strings.HasSuffix(call, "/auth/time") || slices.ContainsFunc(ovh.Rights(ordering), func(r string) bool {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(r), `\*`, ".+")
			ok, _ := regexp.MatchString("^"+pattern+"$", call)
			return ok
		})
		if !granted && call != "GET /elsewhere" {
			f.t.Errorf("no right covers %s", call)
		}
	}
}

func (f *fake) add(name, ip string) *fakeServer {
	s := &fakeServer{
		fields: object{"name": name, "ip": ip, "commercialRange": "rise", "datacenter": "gra2", "state": "ok",
			"powerState": "poweron", "bootId": diskID, "bootScript": nil, "rescueSshKey": nil, "rescueMail": nil,
			"monitoring": true, "noIntervention": false, "os": "none_64", "rack": "G1", "region": "eu-west-gra",
			"serverId": 7, "supportLevel": "pro", "reverse": name + ".", "professionalUse": false, "linkSpeed": 1000,
			"newUpgradeSystem": false, "availabilityZone": "eu-west-gra-a"},
		boots: map[int64]object{
			diskID:   {"bootId": diskID, "bootType": "harddisk", "kernel": "hd", "description": "Boot from hard drive"},
			22:       {"bootId": 22, "bootType": "rescue", "kernel": "rescue64-pro", "description": "old"},
			rescueID: {"bootId": rescueID, "bootType": "rescue", "kernel": "rescue-customer", "description": "Customer rescue system"},
			ipxeID:   {"bootId": ipxeID, "bootType": "network", "kernel": "ipxe", "description": "custom"},
		},
		tasks: map[int64]object{}, interventions: map[int64]object{},
		ips: []string{ip + "/32", "2001:db8:7::/64"}, reverses: map[string]string{},
	}
	f.servers[name] = s
	return s
}

// edit changes the fake while it serves.
func (f *fake) edit(change func(s *fakeServer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.servers[service])
}

func (f *fake) field(name string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers[service].fields[name]
}

// count says how many calls of method had a path that ends in suffix, query and all.
func (f *fake) count(method, suffix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		m, path, _ := strings.Cut(c, " ")
		if m == method && strings.HasSuffix(path, suffix) {
			n++
		}
	}
	return n
}

func (f *fake) body(method, suffix string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for call, body := range f.bodies {
		if strings.HasPrefix(call, method+" ") && strings.HasSuffix(call, suffix) {
			return body
		}
	}
	return ""
}

func (f *fake) now() time.Time { return time.Now().Add(f.skew) }

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path == "/1.0/auth/time" {
		f.calls = append(f.calls, r.Method+" "+r.URL.Path)
		if f.before != nil && f.before(w, r) {
			return
		}
		fmt.Fprint(w, f.now().Unix())
		return
	}
	call := r.Method + " " + r.RequestURI
	f.calls = append(f.calls, call)
	f.bodies[call] = string(body)
	if code := f.refuse(r, body); code != "" {
		status := http.StatusBadRequest
		if code == "INVALID_CREDENTIAL" {
			status = http.StatusForbidden
		}
		oldError(w, status, code)
		return
	}
	if f.before != nil && f.before(w, r) {
		return
	}
	rec := httptest.NewRecorder()
	f.route(rec, r, body)
	if f.spec != nil {
		f.spec.check(f.t, r, body, rec)
	}
	if f.after != nil && f.after(r) {
		cut(w)
		return
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

// refuse checks who calls, as OVH documents it.
func (f *fake) refuse(r *http.Request, body []byte) string {
	stamp, err := strconv.ParseInt(r.Header.Get("X-Ovh-Timestamp"), 10, 64)
	if err != nil || r.Header.Get("X-Ovh-Application") != appKey {
		return "INVALID_KEY"
	}
	if r.Header.Get("X-Ovh-Consumer") != consumerKey {
		return "INVALID_CREDENTIAL"
	}
	if d := f.now().Unix() - stamp; d < -30 || d > 30 {
		return "QUERY_TIME_OUT"
	}
	sum := sha1.Sum([]byte(strings.Join([]string{appSecret, consumerKey, r.Method, f.URL + r.RequestURI,
		string(body), strconv.FormatInt(stamp, 10)}, "+")))
	if r.Header.Get("X-Ovh-Signature") != fmt.Sprintf("$1$%x", sum) {
		return "INVALID_SIGNATURE"
	}
	return ""
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func oldError(w http.ResponseWriter, status int, code string) {
	text := map[string]string{"QUERY_TIME_OUT": "Query out of time", "INVALID_SIGNATURE": "Invalid signature",
		"INVALID_CREDENTIAL": "This credential is not valid", "NOT_GRANTED_CALL": "This call has not been granted",
		"INVALID_KEY": "Invalid application key"}[code]
	w.WriteHeader(status)
	reply(w, object{"errorCode": code, "httpCode": fmt.Sprint(status, " ", http.StatusText(status)), "message": text})
}

func newError(w http.ResponseWriter, status int, class, message string) {
	w.Header().Set("X-Ovh-QueryID", "EU.ext-1.1234")
	w.WriteHeader(status)
	reply(w, object{"class": class, "message": message, "details": object{"n": 1}})
}

func notFound(w http.ResponseWriter) {
	newError(w, http.StatusNotFound, "Client::NotFound", "The requested object does not exist")
}

func reply(w http.ResponseWriter, v any) {
	if rec, ok := w.(*httptest.ResponseRecorder); ok && rec.Header().Get("Content-Type") == "" {
		rec.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	json.NewEncoder(w).Encode(v)
}

func (f *fake) route(w http.ResponseWriter, r *http.Request, body []byte) {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/1.0")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case strings.HasPrefix(path, "/dedicated/server/datacenter/"), strings.HasPrefix(path, "/order/"), strings.HasPrefix(path, "/me"):
		f.orders.route(w, r, parts, body)
	case strings.HasPrefix(path, "/ip/"):
		f.routeIP(w, r, parts, body)
	case strings.HasPrefix(path, "/dedicated/server/") && f.servers[parts[2]] != nil:
		f.routeServer(w, r, f.servers[parts[2]], parts[3:], body)
	default:
		notFound(w)
	}
}

func (f *fake) routeServer(w http.ResponseWriter, r *http.Request, s *fakeServer, parts []string, body []byte) {
	switch call := r.Method + " " + strings.Join(parts[:min(1, len(parts))], ""); {
	case call == "GET ":
		reply(w, s.fields)
	case call == "PUT ":
		f.put(w, s, body)
	case call == "GET boot":
		list(w, r, s.boots, parts, "bootType")
	case call == "GET task":
		f.advance(s, parts)
		list(w, r, s.tasks, parts, "function", "status")
	case call == "GET intervention":
		list(w, r, s.interventions, parts)
	case call == "GET ips":
		reply(w, s.ips)
	case call == "POST reboot":
		reply(w, f.task(s, "hardReboot", "init"))
	default:
		notFound(w)
	}
}

// list answers the ids that fit the query, or one object.
func list(w http.ResponseWriter, r *http.Request, all map[int64]object, parts []string, filters ...string) {
	if len(parts) > 1 {
		id, _ := strconv.ParseInt(parts[1], 10, 64)
		if all[id] == nil {
			notFound(w)
			return
		}
		reply(w, all[id])
		return
	}
	ids := []int64{}
	for id, o := range all {
		if !slices.ContainsFunc(filters, func(k string) bool { return r.URL.Query().Has(k) && r.URL.Query().Get(k) != o[k] }) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	reply(w, ids)
}

func (f *fake) put(w http.ResponseWriter, s *fakeServer, body []byte) {
	var change object
	if err := json.Unmarshal(body, &change); err != nil {
		newError(w, 400, "Client::BadRequest", err.Error())
		return
	}
	if id, ok := change["bootId"].(float64); ok && s.boots[int64(id)] == nil {
		newError(w, 404, "Client::NotFound", "The requested object (bootId) must be on list")
		return
	}
	for k, v := range change {
		if v == "" {
			v = nil
		}
		s.fields[k] = v
	}
	reply(w, nil)
}

func (f *fake) task(s *fakeServer, function, status string) object {
	f.nextTask++
	t := object{"taskId": f.nextTask, "function": function, "status": status, "comment": nil,
		"startDate": f.now().Format(time.RFC3339), "doneDate": nil, "lastUpdate": nil, "needSchedule": false}
	s.tasks[f.nextTask] = t
	return t
}

// advance brings a task that is read one step nearer to done.
func (f *fake) advance(s *fakeServer, parts []string) {
	if len(parts) < 2 || f.polls < 0 {
		return
	}
	id, _ := strconv.ParseInt(parts[1], 10, 64)
	t := s.tasks[id]
	if t == nil || t["status"] != "init" && t["status"] != "doing" {
		return
	}
	if f.reads[id]++; f.reads[id] > f.polls {
		t["status"], t["doneDate"] = "done", f.now().Format(time.RFC3339)
		return
	}
	t["status"] = "doing"
}

func (f *fake) routeIP(w http.ResponseWriter, r *http.Request, parts []string, body []byte) {
	s := f.servers[service]
	block, _ := url.PathUnescape(parts[1])
	if !slices.Contains(s.ips, block) || len(parts) < 3 || parts[2] != "reverse" {
		notFound(w)
		return
	}
	var ip string
	if len(parts) > 3 {
		ip, _ = url.PathUnescape(parts[3])
	}
	switch name, ok := s.reverses[ip]; {
	case r.Method == "POST":
		var in struct{ IPReverse, Reverse string }
		json.Unmarshal(body, &in)
		if strings.HasPrefix(in.Reverse, "nowhere") {
			newError(w, 400, "Client::BadRequest", "Cannot check if "+in.Reverse+" resolves to "+in.IPReverse)
			return
		}
		s.reverses[in.IPReverse] = strings.TrimSuffix(in.Reverse, ".") + "."
		reply(w, object{"ipReverse": in.IPReverse, "reverse": s.reverses[in.IPReverse]})
	case !ok:
		notFound(w)
	case r.Method == "DELETE":
		delete(s.reverses, ip)
		reply(w, nil)
	default:
		reply(w, object{"ipReverse": ip, "reverse": name})
	}
}

// driver is a fast one for f.
func (f *fake) driver(t testing.TB, change ...func(*ovh.Options)) *ovh.Driver {
	t.Helper()
	o := ovh.Options{Endpoint: f.URL + "/1.0", ApplicationKey: inventory.SecretText(appKey),
		ApplicationSecret: inventory.SecretText(appSecret), ConsumerKey: inventory.SecretText(consumerKey),
		Servers: map[string]string{"gra-1": service}, Backoff: time.Millisecond, CallTimeout: time.Second,
		Budget: 10 * time.Second, Pace: 0.01}
	for _, c := range change {
		c(&o)
	}
	d, err := ovh.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}
