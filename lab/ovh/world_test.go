package ovh_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh"
	"popfleet/lab/scripted"
	"popfleet/lab/speccheck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	service   = "ns1001.ip-198-19-1.eu"
	publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4n5xVtIu5R3XhXyBbZJgUWlSIeN4yRJyUMTpyNyhaK test"
	diskBoot  = 1
	rescueEU  = 46371
	server    = "/dedicated/server/" + service
)

// world is an account with one or two servers, and its owner's client.
type world struct {
	client
	ovh     *ovh.OVH
	faults  *faults.Set
	backend *scripted.Backend
	check   *speccheck.Check
}

// client signs by the formula of the provider's documentation; it shares nothing with the simulator or the driver.
type client struct {
	t            *testing.T
	url          string // ends in /1.0
	app, secret  string
	consumer     string
	clock        func() time.Time
	changeHeader func(http.Header)
}

type apiError struct {
	Class, Message, ErrorCode, HTTPCode string
}

func rented(name string, n byte) ovh.Rented {
	return ovh.Rented{ServiceName: name, Datacenter: "gra3", Range: "Rise-1", Machine: machine.Config{
		Label: "gra-" + fmt.Sprint(n), Address: netip.AddrFrom4([4]byte{198, 19, 1, n}), Gateway4: netip.MustParseAddr("198.19.1.254"),
		Prefix6: netip.MustParsePrefix(fmt.Sprintf("2001:db8:3:%x::/64", n)), Firmware: "uefi", CPUs: 1, MemoryMB: 512, DiskGB: 4, Disks: 2,
	}}
}

func start(t *testing.T, change func(*ovh.Options)) *world {
	t.Helper()
	return startChecked(t, nil, change)
}

func startChecked(t *testing.T, spec *speccheck.Spec, change func(*ovh.Options)) *world {
	t.Helper()
	set := &faults.Set{}
	backend := scripted.New(t.Context(), scripted.Options{Faults: set})
	opt := ovh.Options{
		ApplicationKey: "app", ApplicationSecret: "app-secret", ConsumerKey: "consumer", Backend: backend, Faults: set,
		Delay: ovh.Every(2 * time.Millisecond), Machines: []ovh.Rented{rented(service, 11)},
	}
	if change != nil {
		change(&opt)
	}
	o, err := ovh.New(t.Context(), opt)
	must(t, err)
	w := &world{ovh: o, faults: set, backend: backend}
	h := o.Handler()
	if spec != nil {
		w.check = spec.Middleware(func(v speccheck.Violation) { t.Error(v) })
		h = w.check.Wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); o.Close(); backend.Close() })
	w.client = client{t: t, url: srv.URL + "/1.0", app: "app", secret: "app-secret", consumer: "consumer", clock: time.Now}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send makes one signed call and returns the status and the answer's body.
func (c client) send(ctx context.Context, method, path, body string) (int, http.Header, []byte, error) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	must(c.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	at := c.clock().Unix()
	req.Header.Set("X-Ovh-Application", c.app)
	req.Header.Set("X-Ovh-Consumer", c.consumer)
	req.Header.Set("X-Ovh-Timestamp", fmt.Sprint(at))
	sum := sha1.Sum([]byte(fmt.Sprintf("%s+%s+%s+%s+%s+%d", c.secret, c.consumer, method, c.url+path, body, at)))
	req.Header.Set("X-Ovh-Signature", fmt.Sprintf("$1$%x", sum))
	if c.changeHeader != nil {
		c.changeHeader(req.Header)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, data, err
}

func (c client) call(method, path string, body any) (int, []byte) {
	c.t.Helper()
	text := ""
	if s, ok := body.(string); ok {
		text = s
	} else if body != nil {
		data, err := json.Marshal(body)
		must(c.t, err)
		text = string(data)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	status, _, data, err := c.send(ctx, method, path, text)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return status, data
}

// ok makes a call that has to succeed and reads its answer.
func (c client) ok(method, path string, body, out any) {
	c.t.Helper()
	status, data := c.call(method, path, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %s", method, path, status, data)
	}
	if out == nil {
		if got := string(bytes.TrimSpace(data)); got != "null" {
			c.t.Errorf("%s %s answered %s, want null", method, path, got)
		}
		return
	}
	must(c.t, json.Unmarshal(data, out))
}

// refused makes a call that has to fail.
func (c client) refused(method, path string, body any, status int, words string) {
	c.t.Helper()
	got, data := c.call(method, path, body)
	var e apiError
	must(c.t, json.Unmarshal(data, &e))
	if got != status || !strings.Contains(e.Class+" "+e.Message+" "+e.ErrorCode, words) {
		c.t.Errorf("%s %s: %d %s, want %d with %q", method, path, got, data, status, words)
	}
}

type task struct {
	TaskID    int64
	Function  string
	Status    string
	Comment   string
	StartDate time.Time
	DoneDate  *time.Time
}

// reboot presses the button.
func (w *world) reboot() task {
	w.t.Helper()
	var t task
	w.ok("POST", server+"/reboot", nil, &t)
	if t.Function != "hardReboot" || t.Status != "init" {
		w.t.Errorf("reboot: %+v", t)
	}
	return t
}

// finish waits for a task as a patient client does: 404 and 500 are waited through.
func (w *world) finish(id int64) task {
	w.t.Helper()
	var t task
	w.until(fmt.Sprintf("task %d ends", id), func() bool {
		status, data := w.call("GET", fmt.Sprintf("%s/task/%d", server, id), nil)
		if status == 404 || status == 500 {
			return false
		}
		must(w.t, json.Unmarshal(data, &t))
		return t.Status != "init" && t.Status != "todo" && t.Status != "doing"
	})
	return t
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in 10 s: %s", what)
		}
		pause()
	}
}

// pause lets others work between two looks at a condition.
func pause() {
	t := time.NewTimer(time.Millisecond)
	<-t.C
}

func (w *world) machine() *scripted.Machine {
	w.t.Helper()
	m, ok := w.backend.Labelled("gra-11")
	if !ok {
		w.t.Fatal("no machine")
	}
	return m
}

func (w *world) stage(want string) {
	w.t.Helper()
	w.until(fmt.Sprintf("machine is %s, it is %s", want, w.machine().Stage()), func() bool { return w.machine().Stage() == want })
}

type serverState struct {
	BootID                           *int64
	RescueSSHKey, BootScript         *string
	Monitoring                       bool
	State, PowerState, Name, Reverse string
}

func (w *world) get() serverState {
	w.t.Helper()
	var s serverState
	w.ok("GET", server, nil, &s)
	return s
}

func (w *world) fault(f faults.Fault) {
	w.t.Helper()
	w.faults.MustAdd(f)
}
