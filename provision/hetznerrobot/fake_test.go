package hetznerrobot

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a Robot of our own, small and strict, answered in the process so that tests can run on synctest's clock. It is
// written from the published documentation and shares nothing with the lab's simulator.
type fake struct {
	t    testing.TB
	zone *time.Location
	spec *spec // nil: the description is absent

	mu       sync.Mutex
	boxes    map[int]*box
	keys     map[string]string // MD5 → name
	rdns     map[string]string
	orders   map[string][]map[string]any // by "server" and "server_market"
	calls    []string                    // "POST /reset/321 type=hw"
	password string
	boots    int
	fault    func(call string) *fault

	latency time.Duration // of every call, on the test's clock
}

// fault is what goes wrong with one call.
type fault struct {
	status int    // answered instead, when not 0
	code   string // of that answer
	extra  map[string]any
	hang   bool  // until the caller gives up
	after  bool  // it takes effect first
	cut    error // the transport's error
	body   string
}

// box is one server.
type box struct {
	number    int
	name      string
	status    string
	cancelled bool
	types     []string
	power     string // operating_status
	armed     string // os of the rescue system that is armed
	allowed   []string
	last      *started
	next      *started // a rescue system on its way
	delay     time.Duration
	keysLate  time.Duration
	lose      map[string]int // presses of a button that have no effect, by type
	presses   int
	manual    bool
	noBoot    bool
	install   string // linux, vnc, windows
}

// started is one start of a rescue system.
type started struct {
	at      time.Time
	os      string
	allowed []string
	hosts   []string
	keysAt  time.Time
}

func newFake(t testing.TB) *fake {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return &fake{t: t, zone: zone, boxes: map[int]*box{}, keys: map[string]string{}, rdns: map[string]string{},
		orders: map[string][]map[string]any{}, password: "secret-password", spec: loadSpec(t)}
}

func (f *fake) add(number int) *box {
	b := &box{number: number, name: "old", status: "ready", types: []string{"sw", "hw", "man"}, power: "not supported",
		delay: 80 * time.Second, lose: map[string]int{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boxes[number] = b
	return b
}

// RoundTrip answers one request, in the caller's goroutine.
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	raw := ""
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		raw = string(b)
	}
	call := strings.TrimSpace(r.Method + " " + r.URL.Path + " " + unescaped(raw))
	f.mu.Lock()
	f.calls = append(f.calls, call)
	var bad *fault
	if f.fault != nil {
		bad = f.fault(call)
	}
	f.mu.Unlock()
	time.Sleep(f.latency)
	if f.spec != nil {
		f.spec.check(f.t, r, raw)
	}
	w := httptest.NewRecorder()
	if bad == nil || bad.after {
		f.serve(w, r, raw)
	}
	if bad != nil {
		return bad.answer(w, r)
	}
	return w.Result(), nil
}

func (b *fault) answer(w *httptest.ResponseRecorder, r *http.Request) (*http.Response, error) {
	switch {
	case b.hang:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case b.cut != nil:
		return nil, b.cut
	case b.body != "":
		w = httptest.NewRecorder()
		_, _ = w.WriteString(b.body)
	case b.status != 0:
		w = httptest.NewRecorder()
		refuse(w, b.status, b.code, b.extra)
	}
	return w.Result(), nil
}

func unescaped(raw string) string {
	s, err := url.QueryUnescape(raw)
	if err != nil {
		return raw
	}
	return s
}

func refuse(w http.ResponseWriter, status int, code string, extra map[string]any) {
	e := map[string]any{"status": status, "code": code, "message": strings.ToLower(code)}
	maps.Copy(e, extra)
	answer(w, status, map[string]any{"error": e})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, raw string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	user, password, _ := r.BasicAuth()
	if user != "ws-user" || password != f.password {
		refuse(w, 401, "UNAUTHORIZED", nil)
		return
	}
	if raw != "" && r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		f.t.Errorf("%s %s: body of type %q", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	form, err := url.ParseQuery(raw)
	if err != nil {
		f.t.Errorf("%s %s: form: %v", r.Method, r.URL.Path, err)
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch parts[0] {
	case "server":
		f.server(w, r, parts, form)
	case "boot":
		f.boot(w, r, parts, form)
	case "reset":
		f.reset(w, r, parts, form)
	case "key":
		f.key(w, r, parts, form)
	case "rdns":
		f.reverse(w, r, parts, form)
	case "order":
		f.order(w, r, parts, form)
	default:
		f.t.Errorf("unknown path %s", r.URL.Path)
	}
}

func (f *fake) box(w http.ResponseWriter, text string) *box {
	n, _ := strconv.Atoi(text)
	b := f.boxes[n]
	if b == nil {
		refuse(w, 404, "SERVER_NOT_FOUND", nil)
		return nil
	}
	f.settle(b)
	return b
}

func (b *box) wire() map[string]any {
	return map[string]any{"server": map[string]any{"server_ip": fmt.Sprintf("192.0.2.%d", b.number%250), "server_number": b.number,
		"server_ipv6_net": fmt.Sprintf("2001:db8:%x::", b.number), "server_name": b.name, "product": "EX44", "dc": "FSN1-DC7",
		"traffic": "unlimited", "status": b.status, "cancelled": b.cancelled, "paid_until": "2026-12-31", "ip": []string{}, "subnet": nil}}
}

func (f *fake) server(w http.ResponseWriter, r *http.Request, parts []string, form url.Values) {
	if len(parts) == 1 {
		var all []any
		for _, n := range slices.Sorted(maps.Keys(f.boxes)) {
			all = append(all, f.boxes[n].wire())
		}
		if all == nil {
			refuse(w, 404, "SERVER_NOT_FOUND", nil)
			return
		}
		answer(w, 200, all)
		return
	}
	b := f.box(w, parts[1])
	if b == nil {
		return
	}
	if r.Method == http.MethodPost {
		b.name = form.Get("server_name")
	}
	answer(w, 200, b.wire())
}

func (f *fake) reset(w http.ResponseWriter, r *http.Request, parts []string, form url.Values) {
	b := f.box(w, parts[1])
	switch {
	case b == nil:
	case len(b.types) == 0:
		refuse(w, 404, "RESET_NOT_AVAILABLE", nil)
	case r.Method == http.MethodGet:
		answer(w, 200, map[string]any{"reset": map[string]any{"server_number": b.number, "type": b.types, "operating_status": b.power}})
	case b.manual:
		refuse(w, 409, "RESET_MANUAL_ACTIVE", nil)
	case !slices.Contains(b.types, form.Get("type")):
		refuse(w, 400, "INVALID_INPUT", map[string]any{"missing": nil, "invalid": []string{"type"}})
	default:
		f.press(b, form.Get("type"))
		answer(w, 200, map[string]any{"reset": map[string]any{"server_number": b.number, "type": form.Get("type")}})
	}
}

// press restarts a server; rescue is one-shot, so a second press during its start boots the disk.
func (f *fake) press(b *box, kind string) {
	if kind == "man" {
		f.t.Error("a manual reset was ordered")
	}
	if b.lose[kind] > 0 {
		b.lose[kind]--
		return
	}
	if kind == "power_long" {
		b.power, b.next = "stopped", nil
		return
	}
	b.presses++
	if b.power == "stopped" {
		b.power = "running"
	}
	f.restart(b)
}

func (f *fake) restart(b *box) {
	b.next = nil
	if b.armed == "" {
		return
	}
	f.boots++
	sum := sha256.Sum256([]byte(strconv.Itoa(f.boots)))
	at := time.Now().Add(b.delay)
	b.next = &started{at: at, os: b.armed, allowed: b.allowed, keysAt: at.Add(b.keysLate),
		hosts: []string{base64.RawStdEncoding.EncodeToString(sum[:])}}
	b.armed, b.allowed = "", nil
}

func (f *fake) settle(b *box) {
	if b.next != nil && !b.next.at.After(time.Now()) {
		b.last, b.next = b.next, nil
	}
}

// count is how many calls begin with prefix.
func (f *fake) count(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

// once breaks the first call that begins with prefix.
func (f *fake) once(prefix string, bad fault) {
	f.times(1, prefix, bad)
}

func (f *fake) times(n int, prefix string, bad fault) {
	f.fault = func(call string) *fault {
		if n == 0 || !strings.HasPrefix(call, prefix) {
			return nil
		}
		n--
		return &bad
	}
}
