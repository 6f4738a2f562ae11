package daemon

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/agents"
	"popfleet/agents/collect"
	"popfleet/agents/collect/smart"
	"popfleet/internal/control"
	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// controller is a hand-made controller that keeps what it hears.
type controller struct {
	srv     *http.Server
	address string

	mu      sync.Mutex
	heard   []agents.Report
	batches [][]uint64
	peer    mtls.Name
	answer  func(reports []agents.Report) (code int, body string)
}

func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var reports []agents.Report
	if err := json.NewDecoder(z).Decode(&reports); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer != nil {
		if code, body := c.answer(reports); code != 0 {
			http.Error(w, body, code)
			return
		}
	}
	var seqs []uint64
	for _, report := range reports {
		seqs = append(seqs, report.Seq)
	}
	c.heard, c.batches = append(c.heard, reports...), append(c.batches, seqs)
	c.peer, _ = mtls.Peer(*r.TLS)
	fmt.Fprintf(w, `{"acked_seq":%d,"time":%q,"interval":"1s","later":true}`, seqs[len(seqs)-1], time.Now().Format(time.RFC3339Nano))
}

// seqs is the set of sequence numbers heard.
func (c *controller) seqs() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []uint64
	for _, r := range c.heard {
		out = append(out, r.Seq)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func startController(t *testing.T, a *mtlstest.Authority, name mtls.Name, address string) *controller {
	t.Helper()
	config := a.Identity(name).Server(func(mtls.Name) error { return nil })
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &controller{address: l.Addr().String()}
	c.srv = &http.Server{Handler: c, TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	done := make(chan struct{})
	go func() { defer close(done); c.srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { c.srv.Close(); <-done })
	return c
}

type noDisks struct{}

func (noDisks) Readings(context.Context) ([]smart.Reading, error) {
	return []smart.Reading{{Serial: "S1", Kind: smart.KindNVMe, NVMe: &smart.NVMeLog{TemperatureK: 310}}}, nil
}

// fakeRoot is a machine with a boot id and little else.
func fakeRoot(t *testing.T, boot string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range map[string]string{
		"proc/sys/kernel/random/boot_id": boot, "proc/sys/kernel/hostname": "fsn-1", "proc/uptime": "12.5 30.0",
		"proc/loadavg": "0.25 0.1 0.0 1/100 42", "proc/meminfo": "MemTotal: 1024 kB\nMemAvailable: 512 kB\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// socketDir is a directory whose paths are short enough for a unix socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

var fast = Pace{FirstPause: 20 * time.Millisecond, MaxPause: 200 * time.Millisecond, ReplayPause: 20 * time.Millisecond, Timeout: 5 * time.Second}

// startAgent runs an agent until the returned function, or the test, ends it.
func startAgent(t *testing.T, c Config, root string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, c, Deps{Log: slog.New(slog.DiscardHandler), Disks: noDisks{}, Root: root, Pace: fast})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func agentConfig(t *testing.T, a *mtlstest.Authority, controllers ...string) Config {
	c := Default()
	c.Fleet, c.Node, c.PoP, c.Controllers, c.Interval = "demo", "fsn-1", "fsn", controllers, Duration(time.Second)
	c.Spool, c.Control = t.TempDir(), filepath.Join(socketDir(t), "c.sock")
	c.TLS = a.Files(mtls.Name{Fleet: "demo", Service: "agent", Node: "fsn-1"})
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits for a condition on a busy machine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(40 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within 40 s: %s", what)
		case <-tick.C:
		}
	}
}

var main1 = mtls.Name{Fleet: "demo", Service: "controller", Node: "main"}

func TestReportsReachEveryController(t *testing.T) {
	a := mtlstest.New(t)
	one := startController(t, a, main1, "127.0.0.1:0")
	two := startController(t, a, mtls.Name{Fleet: "demo", Service: "controller", Node: "other"}, "127.0.0.1:0")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing: a black hole
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := agentConfig(t, a, one.address, silent.Addr().String(), two.address)
	c.Services = []collect.Service{{Name: "agent", Control: c.Control}, {Name: "store", Control: "/nowhere/control.sock"}}
	startAgent(t, c, fakeRoot(t, "boot-1"))
	for _, heard := range []*controller{one, two} {
		eventually(t, "two reports", func() bool { return len(heard.seqs()) >= 2 })
	}
	one.mu.Lock()
	r, peer := one.heard[len(one.heard)-1], one.peer
	one.mu.Unlock()
	if peer.String() != "popfleet://demo/agent/fsn-1" || r.V != 1 || r.Node != "fsn-1" || r.BootID != "boot-1" || r.Seq == 0 {
		t.Errorf("from %s: %+v", peer, r)
	}
	if r.Host.MemTotal != 1<<20 || r.Host.UptimeSec != 12.5 || r.Host.RootLUKS {
		t.Errorf("host %+v", r.Host)
	}
	if len(r.Disks) != 1 || r.Disks[0].Verdict != agents.DiskOK {
		t.Errorf("disks %+v", r.Disks)
	}
	if len(r.Services) != 2 || !r.Services[0].Healthy || r.Services[1].Healthy || r.Services[1].Reason == "" {
		t.Errorf("services %+v", r.Services)
	}
	if h, err := control.Dial(c.Control).Health(t.Context()); err != nil || !h.OK {
		t.Errorf("health %+v %v", h, err)
	}
}

func TestWhatAnAbsentControllerMissedArrivesNewestFirst(t *testing.T) {
	a := mtlstest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nobody there yet
	c := agentConfig(t, a, address)
	root := fakeRoot(t, "boot-1")
	stop := startAgent(t, c, root)
	s := control.Dial(c.Control)
	eventually(t, "three reports in the spool", func() bool { return pendingOf(t, s) >= 3 })
	stop() // the spool outlives the agent

	heard := startController(t, a, main1, address)
	startAgent(t, c, root)
	eventually(t, "everything arrived", func() bool { return len(heard.seqs()) >= 5 })
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for _, b := range heard.batches {
		if !slices.IsSorted(b) {
			t.Errorf("batch %v: newest is not last", b)
		}
	}
	boots := map[string]bool{}
	for _, r := range heard.heard {
		boots[r.BootID] = true
	}
	if len(boots) != 1 {
		t.Errorf("boots %v", boots)
	}
}

func pendingOf(t *testing.T, c *control.Client) float64 {
	s, err := c.Status(t.Context())
	if err != nil {
		return 0
	}
	links := s.Detail.(map[string]any)["controllers"].([]any)
	return links[0].(map[string]any)["pending"].(float64)
}

// A number used twice in a boot would make the controller drop the later report as a resend.
func TestNumbersGoOnAfterARestart(t *testing.T) {
	a := mtlstest.New(t)
	heard := startController(t, a, main1, "127.0.0.1:0")
	c := agentConfig(t, a, heard.address)
	root := fakeRoot(t, "boot-1")
	startAgent(t, c, root)()
	for lose := range 2 {
		before := len(heard.seqs())
		if lose == 1 { // the disk forgot
			if err := os.RemoveAll(c.Spool); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "proc/uptime"), []byte("5000.00 1.0\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		stop := startAgent(t, c, root)
		eventually(t, "a report more", func() bool { return len(heard.seqs()) > before })
		stop()
	}
	heard.mu.Lock()
	defer heard.mu.Unlock()
	seen := map[uint64]time.Time{}
	for _, r := range heard.heard {
		if at, twice := seen[r.Seq]; twice && !at.Equal(r.Time) {
			t.Errorf("seq %d stands for reports of %s and %s", r.Seq, at, r.Time)
		}
		seen[r.Seq] = r.Time
	}
}

func TestAnImpostorGetsNothing(t *testing.T) {
	a, other := mtlstest.New(t), mtlstest.New(t)
	impostors := []*controller{
		startController(t, a, mtls.Name{Fleet: "demo", Service: "transport", Node: "fsn-2"}, "127.0.0.1:0"), // a node is no controller
		startController(t, a, mtls.Name{Fleet: "prod", Service: "controller", Node: "main"}, "127.0.0.1:0"),
		startController(t, other, main1, "127.0.0.1:0"), // another authority
	}
	honest := startController(t, a, main1, "127.0.0.1:0")
	addresses := []string{honest.address}
	for _, i := range impostors {
		addresses = append(addresses, i.address)
	}
	c := agentConfig(t, a, addresses...)
	startAgent(t, c, fakeRoot(t, "boot-1"))
	eventually(t, "two reports at the honest one", func() bool { return len(honest.seqs()) >= 2 })
	s, err := control.Dial(c.Control).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	links := s.Detail.(map[string]any)["controllers"].([]any)
	for i, l := range links {
		l := l.(map[string]any)
		if connected := l["connected"].(bool); connected != (i == 0) {
			t.Errorf("%v", l)
		}
	}
	for _, i := range impostors {
		if got := i.seqs(); len(got) != 0 {
			t.Errorf("an impostor heard %v", got)
		}
	}
}

func TestARefusedReportStopsNoOther(t *testing.T) {
	a := mtlstest.New(t)
	heard := startController(t, a, main1, "127.0.0.1:0")
	var poison uint64
	heard.answer = func(reports []agents.Report) (int, string) {
		if poison == 0 {
			poison = reports[0].Seq
		}
		for _, r := range reports {
			if r.Seq == poison {
				return http.StatusBadRequest, "I cannot read this"
			}
		}
		return 0, ""
	}
	c := agentConfig(t, a, heard.address)
	startAgent(t, c, fakeRoot(t, "boot-1"))
	eventually(t, "reports after the refused one", func() bool { return len(heard.seqs()) >= 2 })
}

func TestAControllerThatIsIllIsAskedLess(t *testing.T) {
	a := mtlstest.New(t)
	heard := startController(t, a, main1, "127.0.0.1:0")
	asked := 0
	heard.answer = func([]agents.Report) (int, string) {
		if asked++; asked <= 3 {
			return http.StatusServiceUnavailable, "later"
		}
		return 0, ""
	}
	startAgent(t, agentConfig(t, a, heard.address), fakeRoot(t, "boot-1"))
	eventually(t, "the report after three failures", func() bool { s := heard.seqs(); return len(s) > 0 })
}

func TestConfig(t *testing.T) {
	good := Default()
	good.Fleet, good.Node, good.Controllers = "demo", "fsn-1", []string{"198.18.0.1:8440"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.Node, bad.Interval, bad.Spool, bad.Control, bad.TLS.Key = "", Duration(time.Millisecond), "spool", "", ""
	bad.Controllers = []string{"198.18.0.1", "a:1", "a:1"}
	bad.Services = []collect.Service{{Name: "dns", Control: "x"}, {Name: "dns", Control: "/x"}}
	err := bad.Validate()
	for _, want := range []string{"fleet and node", "interval 1ms: expected 1s to 5m0s", `spool "spool"`, `control ""`, "tls.key",
		`controllers[0] "198.18.0.1": expected host:port`, "controllers[2]", "services[0].control", `services[1].name "dns"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "agent.json")
	for text, want := range map[string]string{
		`{"fleet":"demo","node":"n","interval":"soon"}`: "agent.json:", `{"fleet":"demo","nod":"n"}`: "nod", `{"interval":7}`: `such as \"10s\"`,
		`{"fleet":"demo","node":"n","pop":"p","controllers":null,"interval":"10s","services":[],"spool":"/s","tls":{"cert":"c","key":"k","ca":"a"},"control":"/c"}`: "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(fmt.Sprintf("%q", err.Error()), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// A look that takes longer than the interval must delay reports, never end them.
func TestAHangingServiceDelaysReportsOnly(t *testing.T) {
	a := mtlstest.New(t)
	heard := startController(t, a, main1, "127.0.0.1:0")
	path := filepath.Join(socketDir(t), "s")
	hanging, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	c := agentConfig(t, a, heard.address)
	c.Services = []collect.Service{{Name: "app", Control: path}}
	startAgent(t, c, fakeRoot(t, "boot-1"))
	eventually(t, "a second report", func() bool { return len(heard.seqs()) >= 2 })
}
