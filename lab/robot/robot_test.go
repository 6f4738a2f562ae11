package robot_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/robot"
	"popfleet/lab/scripted"
	"popfleet/lab/speccheck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	publicKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4n5xVtIu5R3XhXyBbZJgUWlSIeN4yRJyUMTpyNyhaK test"
	fingerprint = "2f:e5:b1:8f:2c:4b:8a:0c"
)

type fixture struct {
	t       *testing.T
	robot   *robot.Robot
	faults  *faults.Set
	backend *scripted.Backend
	url     string
	check   *speccheck.Check // nil where nothing is held against the description
}

// server is a machine at the address 198.19.0.n, with the number 320 + n.
func server(n int) robot.Machine {
	return robot.Machine{
		Number: 320 + n, Name: fmt.Sprintf("fsn-%d", n), Product: "EX44",
		Config: machine.Config{
			Address: netip.AddrFrom4([4]byte{198, 19, 0, byte(n)}), Net4: netip.MustParsePrefix("198.19.0.0/26"),
			Gateway4: netip.MustParseAddr("198.19.0.1"), Prefix6: netip.MustParsePrefix(fmt.Sprintf("2001:db8:2:%d::/64", n)),
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(n)}, Firmware: "bios", CPUs: 1, MemoryMB: 1024, DiskGB: 4, Disks: 2, DiskKind: "sata",
		},
	}
}

func start(t *testing.T, spec *speccheck.Spec, change func(*robot.Options)) *fixture {
	t.Helper()
	set := &faults.Set{}
	backend := scripted.New(t.Context(), scripted.Options{Faults: set})
	opt := robot.Options{User: "#ws+popfleet", Password: "secret", Backend: backend, Faults: set, Machines: []robot.Machine{server(2), server(3)}}
	if change != nil {
		change(&opt)
	}
	r, err := robot.New(t.Context(), opt)
	must(t, err)
	f := &fixture{t: t, robot: r, faults: set, backend: backend}
	h := r.Handler()
	if spec != nil {
		f.check = spec.Middleware(func(v speccheck.Violation) { t.Error(v) })
		h = f.check.Wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); r.Close(); backend.Close() })
	f.url = srv.URL
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what came back: a JSON value and its status.
type answer struct {
	status int
	body   any
	raw    string
}

// at walks into the answer: at("rescue", "host_key", "0", "key", "type").
func (a answer) at(path ...string) any {
	v := a.body
	for _, p := range path {
		switch in := v.(type) {
		case map[string]any:
			v = in[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (a answer) code() string { s, _ := a.at("error", "code").(string); return s }

func (a answer) list(path ...string) []any { l, _ := a.at(path...).([]any); return l }

type params map[string]string

// call makes one request with the right password. It fails the test only when no answer comes.
func (f *fixture) call(method, path string, p params) answer {
	f.t.Helper()
	a, err := f.try(f.request(method, path, p))
	must(f.t, err)
	return a
}

func (f *fixture) request(method, path string, p params) *http.Request {
	f.t.Helper()
	form := url.Values{}
	for k, v := range p {
		form.Set(k, v)
	}
	var body io.Reader
	if p != nil {
		body = strings.NewReader(form.Encode())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	f.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, f.url+path, body)
	must(f.t, err)
	if p != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.SetBasicAuth("#ws+popfleet", "secret")
	return r
}

func (f *fixture) try(r *http.Request) (answer, error) {
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, raw: string(data)}
	_ = json.Unmarshal(data, &a.body) // some answers are empty or no JSON: body stays nil
	return a, nil
}

// ok is call for what must succeed.
func (f *fixture) ok(method, path string, p params) answer {
	f.t.Helper()
	a := f.call(method, path, p)
	if a.status >= 300 {
		f.t.Fatalf("%s %s: %d %s", method, path, a.status, a.raw)
	}
	return a
}

// refused wants an error with this code.
func (f *fixture) refused(status int, code, method, path string, p params) answer {
	f.t.Helper()
	a := f.call(method, path, p)
	if a.status != status || a.code() != code {
		f.t.Errorf("%s %s: %d %s, want %d %s", method, path, a.status, a.raw, status, code)
	}
	return a
}

func (f *fixture) eventually(what string, cond func() bool) {
	f.t.Helper()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("not in 15 s: %s", what)
		}
	}
}

// addKey puts the test's key into the account and returns its fingerprint.
func (f *fixture) addKey() string {
	f.t.Helper()
	return f.ok("POST", "/key", params{"name": "k", "data": publicKey}).at("key", "fingerprint").(string)
}

func (f *fixture) stage(number int) string {
	f.t.Helper()
	m, ok := f.backend.Labelled(fmt.Sprintf("fsn-%d", number-320))
	if !ok {
		f.t.Fatalf("no machine for server %d", number)
	}
	return m.Stage()
}

// shownKeys asks a machine's SSH for its host key of every kind.
func (f *fixture) shownKeys(number int) map[string]bool {
	f.t.Helper()
	out := map[string]bool{}
	for _, algo := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA256} {
		cfg := &ssh.ClientConfig{User: "root", HostKeyAlgorithms: []string{algo}, HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			out[strings.TrimPrefix(ssh.FingerprintSHA256(k), "SHA256:")] = true
			return fmt.Errorf("seen enough")
		}}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		c, err := f.machine(number).Dial(ctx, 22)
		cancel()
		must(f.t, err)
		_, _, _, err = ssh.NewClientConn(c, "", cfg)
		if err == nil {
			f.t.Error("the handshake went on")
		}
		_ = c.Close() // in memory: can't fail
	}
	return out
}

func (f *fixture) machine(number int) machine.Machine {
	f.t.Helper()
	for _, i := range f.robot.Servers() {
		if i.ID == fmt.Sprint(number) {
			return i.Machine
		}
	}
	f.t.Fatalf("no server %d", number)
	return nil
}

// TestDescription: the description takes time to load: once for all that need it.
func TestDescription(t *testing.T) {
	spec := speccheck.Load(t, speccheck.HetznerRobot)
	t.Run("everything", func(t *testing.T) { everythingFits(t, spec) })
	t.Run("refusals", func(t *testing.T) { refusals(t, spec) })
}

// everythingFits drives every call that succeeds and holds each exchange against the provider's description.
func everythingFits(t *testing.T, spec *speccheck.Spec) {
	f := start(t, spec, func(o *robot.Options) {
		o.Machines[1].Resets, o.Machines[1].WOL = []string{"power", "power_long", "hw", "man"}, true
		stocked(o)
	})
	f.serversAndAddresses()
	f.reverse()
	print := f.keys()
	f.bootAndReset(print)
	f.orders(print)
	f.ok("DELETE", "/key/"+print, nil)
	t.Logf("%d exchanges of %d kinds fit, %d of them are in no description", f.check.Total(), len(f.check.Seen()), f.check.Apart())
	for _, name := range robot.CallNames() {
		if !f.drove(name) {
			t.Errorf("%s was not driven", name)
		}
	}
}

// drove says whether a call of the simulator was seen to succeed.
func (f *fixture) drove(name string) bool {
	_, route, _ := strings.Cut(name, "  ")
	method, path, _ := strings.Cut(route, " ")
	want := strings.Split(path, "/")
	for seen := range f.check.Seen() {
		parts := strings.Fields(seen)
		got := strings.Split(parts[1], "/")
		if parts[0] != method || len(got) != len(want) || parts[2] > "3" {
			continue
		}
		same := true
		for i := range want {
			same = same && (want[i] == got[i] || strings.HasPrefix(want[i], "{"))
		}
		if same {
			return true
		}
	}
	return false
}

func (f *fixture) serversAndAddresses() {
	t := f.t
	if n := len(f.ok("GET", "/server", nil).list()); n != 2 {
		t.Errorf("%d servers", n)
	}
	s := f.ok("POST", "/server/322", params{"server_name": "demo-fsn-2"})
	if s.at("server", "server_name") != "demo-fsn-2" || s.at("server", "server_ip") != "198.19.0.2" || s.at("server", "status") != "ready" {
		t.Errorf("renamed server: %s", s.raw)
	}
	f.ok("GET", "/server/322", nil)
	if n := len(f.ok("GET", "/ip", nil).list()); n != 2 {
		t.Errorf("%d addresses", n)
	}
	ip := f.ok("GET", "/ip/198.19.0.2", nil)
	if ip.at("ip", "gateway") != "198.19.0.1" || ip.at("ip", "mask") != 26.0 || ip.at("ip", "broadcast") != "198.19.0.63" {
		t.Errorf("address: %s", ip.raw)
	}
	if n := len(f.ok("GET", "/subnet?server_ip=198.19.0.3", nil).list()); n != 1 {
		t.Errorf("%d subnets of one server", n)
	}
	f.ok("GET", "/subnet/2001:db8:2:2::", nil)
}

func (f *fixture) reverse() {
	t := f.t
	if l := f.ok("GET", "/rdns", nil); l.raw != "[]\n" {
		t.Errorf("no reverse names: %s", l.raw)
	}
	for _, c := range []struct {
		method, ip, name string
		status           int
	}{
		{"PUT", "198.19.0.2", "a.demo.test", 201}, {"POST", "198.19.0.2", "b.demo.test", 200}, {"POST", "2001:db8:2:2::1", "c.demo.test", 201},
	} {
		a := f.ok(c.method, "/rdns/"+c.ip, params{"ptr": c.name})
		if a.status != c.status || a.at("rdns", "ptr") != c.name {
			t.Errorf("%s %s: %d %s", c.method, c.ip, a.status, a.raw)
		}
	}
	if a := f.ok("GET", "/rdns/198.19.0.2", nil); a.at("rdns", "ptr") != "b.demo.test" {
		t.Errorf("reverse name: %s", a.raw)
	}
	if n := len(f.ok("GET", "/rdns", nil).list()); n != 2 {
		t.Errorf("%d reverse names", n)
	}
	if a := f.ok("DELETE", "/rdns/2001:db8:2:2:0:0:0:1", nil); a.raw != "" {
		t.Errorf("delete says %q", a.raw)
	}
	f.refused(404, "RDNS_NOT_FOUND", "GET", "/rdns/2001:db8:2:2::1", nil)
}

func (f *fixture) keys() string {
	t := f.t
	print := f.addKey()
	a := f.ok("POST", "/key/"+print, params{"name": "renamed"})
	if a.at("key", "name") != "renamed" || a.at("key", "type") != "ED25519" || a.at("key", "size") != 256.0 || len(print) != 47 {
		t.Errorf("key: %s", a.raw)
	}
	f.ok("GET", "/key/"+print, nil)
	if n := len(f.ok("GET", "/key", nil).list()); n != 1 {
		t.Errorf("%d keys", n)
	}
	return print
}

func (f *fixture) bootAndReset(print string) {
	t := f.t
	f.ok("GET", "/boot/322", nil)
	f.ok("GET", "/boot/322/rescue", nil)
	a := f.ok("POST", "/boot/322/rescue", params{"os": "linux", "authorized_key[]": print, "keyboard": "us"})
	if a.at("rescue", "os") != "linux" || a.at("rescue", "active") != true || a.at("rescue", "password") != nil || len(a.list("rescue", "host_key")) != 0 {
		t.Errorf("activated: %s", a.raw)
	}
	f.ok("GET", "/boot/322", nil)
	f.ok("GET", "/boot/322/rescue", nil)
	f.ok("POST", "/reset/322", params{"type": "hw"})
	f.eventually("rescue", func() bool { return f.stage(322) == "rescue" })
	f.ok("GET", "/boot/322/rescue/last", nil)
	a = f.ok("POST", "/boot/322/rescue", params{"os": "linux"})
	if p, _ := a.at("rescue", "password").(string); len(p) != 16 {
		t.Errorf("without a key there is a password: %s", a.raw)
	}
	a = f.ok("DELETE", "/boot/322/rescue", nil)
	if a.at("rescue", "active") != false || a.at("rescue", "os", "0") != "linux" || a.at("rescue", "password") != nil {
		t.Errorf("deactivated: %s", a.raw)
	}
	if n := len(f.ok("GET", "/reset", nil).list()); n != 2 {
		t.Errorf("%d servers with a reset", n)
	}
	if a := f.ok("GET", "/reset/322", nil); a.at("reset", "operating_status") != "not supported" {
		t.Errorf("reset options: %s", a.raw)
	}
	if a := f.ok("GET", "/reset/323", nil); a.at("reset", "operating_status") != "running" {
		t.Errorf("reset options: %s", a.raw)
	}
	f.ok("GET", "/wol/323", nil)
	f.ok("POST", "/wol/323", params{})
}

func refusals(t *testing.T, spec *speccheck.Spec) {
	f := start(t, spec, nil)
	print := f.addKey()
	for _, c := range []struct {
		status       int
		code         string
		method, path string
		p            params
	}{
		{404, "SERVER_NOT_FOUND", "GET", "/server/7", nil},
		{404, "SERVER_NOT_FOUND", "POST", "/boot/7/rescue", params{"os": "linux"}},
		{404, "SERVER_NOT_FOUND", "POST", "/reset/7", params{"type": "hw"}},
		{404, "BOOT_NOT_AVAILABLE", "GET", "/boot/322/rescue/last", nil},
		{404, "WOL_NOT_AVAILABLE", "POST", "/wol/322", nil},
		{404, "IP_NOT_FOUND", "GET", "/ip/192.0.2.1", nil},
		{404, "IP_NOT_FOUND", "PUT", "/rdns/192.0.2.1", params{"ptr": "a.test"}},
		{404, "SUBNET_NOT_FOUND", "GET", "/subnet/2001:db8::", nil},
		{404, "NOT_FOUND", "GET", "/key/" + fingerprint, nil},
		{404, "NOT_FOUND", "GET", "/order/server/transaction", nil},
		{404, "NOT_FOUND", "GET", "/vswitch", nil},
		{409, "KEY_ALREADY_EXISTS", "POST", "/key", params{"name": "again", "data": publicKey}},
		{400, "INVALID_INPUT", "POST", "/key", params{"name": "bad", "data": "ssh-ed25519 AAAA"}},
		{400, "INVALID_INPUT", "POST", "/server/322", params{"name": "x"}},
		{400, "INVALID_INPUT", "POST", "/reset/322", params{"type": "power"}},
		{400, "INVALID_INPUT", "POST", "/boot/322/rescue", params{"os": "freebsd"}},
		{400, "INVALID_INPUT", "POST", "/boot/322/rescue", params{"os": "linux", "authorized_key[]": fingerprint}},
		{400, "INVALID_INPUT", "POST", "/boot/322/rescue", params{"os": "vkvm", "authorized_key[]": print}},
		{400, "INVALID_INPUT", "PUT", "/rdns/198.19.0.2", params{"ptr": "no host name"}},
		{400, "INVALID_INPUT", "GET", "/server?page=2", nil},
	} {
		f.refused(c.status, c.code, c.method, c.path, c.p)
	}
	a := f.refused(400, "INVALID_INPUT", "POST", "/server/322", params{"name": "x"})
	if a.at("error", "missing", "0") != "server_name" || a.at("error", "invalid", "0") != "name" {
		t.Errorf("what is missing and what is wrong: %s", a.raw)
	}
	f.ok("POST", "/boot/322/rescue", params{"os": "linux"})
	f.refused(409, "BOOT_ALREADY_ENABLED", "POST", "/boot/322/rescue", params{"os": "linux"})
	f.ok("PUT", "/rdns/198.19.0.2", params{"ptr": "a.demo.test"})
	f.refused(409, "RDNS_ALREADY_EXISTS", "PUT", "/rdns/198.19.0.2", params{"ptr": "a.demo.test"})
	f.ok("POST", "/reset/322", params{"type": "man"})
	f.refused(409, "RESET_MANUAL_ACTIVE", "POST", "/reset/322", params{"type": "hw"})
	t.Logf("%d exchanges of %d kinds fit, %d of them are in no description", f.check.Total(), len(f.check.Seen()), f.check.Apart())
}

// A body in another form is no parameters at all, as it is to the provider.
func TestOnlyForms(t *testing.T) {
	f := start(t, nil, nil)
	r := f.request("POST", "/reset/322", nil)
	r.Body = io.NopCloser(strings.NewReader(`{"type":"hw"}`))
	r.Header.Set("Content-Type", "application/json")
	a, err := f.try(r)
	must(t, err)
	if a.code() != "INVALID_INPUT" || a.at("error", "missing", "0") != "type" {
		t.Errorf("a JSON body: %d %s", a.status, a.raw)
	}
}
