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
