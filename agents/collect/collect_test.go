package collect

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"popfleet/agents"
	"popfleet/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type disks []agents.Disk

func (d disks) Disks() []agents.Disk { return d }

type mirrors []agents.Mirror

func (m mirrors) Mirrors() []agents.Mirror { return m }

// fakeRoot is a machine's /proc and what lies beside it.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var machineFiles = map[string]string{
	"proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555\n",
	"proc/sys/kernel/hostname":       "fsn-1\n",
	"proc/sys/kernel/osrelease":      "6.1.0-37-amd64\n",
	"proc/uptime":                    "4521.38 8999.12\n",
	"proc/loadavg":                   "0.75 0.50 0.25 1/99 1234\n",
	"proc/meminfo":                   "MemTotal:        2014000 kB\nMemFree:          100000 kB\nMemAvailable:    1500000 kB\nHugePages_Total:       0\n",
}

func TestHostFacts(t *testing.T) {
	root := fakeRoot(t, machineFiles)
	if err := os.MkdirAll(filepath.Join(root, "opt/fleet"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/opt/fleet/releases/abc123", filepath.Join(root, "opt/fleet/current")); err != nil {
		t.Fatal(err)
	}
	c, err := New("fsn-1", root, nil, disks{{Serial: "S"}}, mirrors{{Name: "fleet-root"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := r.Host
	if h.Hostname != "fsn-1" || h.Kernel != "6.1.0-37-amd64" || h.UptimeSec != 4521.38 || h.Load1 != 0.75 || h.CPUs < 1 {
		t.Errorf("host %+v", h)
	}
	if h.MemTotal != 2014000<<10 || h.MemAvailable != 1500000<<10 || h.RootTotal <= 0 || h.RootFree <= 0 || h.RootFree > h.RootTotal {
		t.Errorf("sizes %+v", h)
	}
	if h.RootLUKS {
		t.Error("a folder of a test passes as an encrypted root")
	}
	if r.Release != "abc123" || r.V != 1 || r.Node != "fsn-1" || len(r.Disks) != 1 || len(r.Mirrors) != 1 || r.Services == nil || r.Pairs == nil {
		t.Errorf("report %+v", r)
	}
	if c.Uptime().Round(time.Second) != 4521*time.Second {
		t.Errorf("uptime %s", c.Uptime())
	}
}

func TestAMachineWithoutABootIDIsNone(t *testing.T) {
	if _, err := New("fsn-1", fakeRoot(t, nil), nil, disks{}, mirrors(nil)); err == nil {
		t.Error("no error")
	}
}

func TestClock(t *testing.T) {
	kernel := func(status int32, maxError int64, err error) func(*unix.Timex) (int, error) {
		return func(t *unix.Timex) (int, error) { t.Status, t.Maxerror = status, maxError; return 0, err }
	}
	if ok, bound := clock(kernel(0, 2500, nil)); ok == nil || !*ok || bound == nil || *bound != 0.0025 {
		t.Errorf("disciplined: %v %v", ok, bound)
	}
	if ok, bound := clock(kernel(unix.STA_UNSYNC, 16_000_000, nil)); ok == nil || *ok || bound != nil {
		t.Errorf("free running: %v %v", ok, bound)
	}
	if ok, bound := clock(kernel(0, 0, errors.New("not permitted"))); ok != nil || bound != nil {
		t.Errorf("unknown: %v %v", ok, bound)
	}
}

func FuzzMeminfo(f *testing.F) {
	f.Add(machineFiles["proc/meminfo"])
	f.Add("MemTotal: -1 kB\nMemTotal: 99999999999999999999 kB\nMemTotal:")
	f.Fuzz(func(t *testing.T, text string) {
		if total, available := parseMeminfo(text); total < 0 || available < 0 {
			t.Errorf("%d %d", total, available)
		}
	})
}

// service is a hand-made service behind a control socket.
type service struct {
	sick   error
	status control.Status
}

func (s service) Health() error          { return s.sick }
func (s service) Status() control.Status { return s.status }
func (s service) Drain()                 {}
func (s service) Undrain()               {}

// serve answers on a socket until the test ends.
func serve(t *testing.T, name string, s service) Service {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // a unix socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, path, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	deadline := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return Service{name, path}
		}
		select {
		case <-deadline:
			t.Fatal("the control socket does not answer")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func f(v float64) *float64 { return &v }

func TestServicesAndPairs(t *testing.T) {
	hanging, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // takes connections, says nothing
	if err != nil {
		t.Skipf("the temporary folder's name is too long for a socket: %v", err)
	}
	defer hanging.Close()
	detail := map[string]any{"replicating": false, "news": 1, "pairs": []map[string]any{
		{"from": "fsn-2", "state": "connected", "rtt_ms": 1.5, "clock_offset_ms": -0.25, "heartbeat_age_sec": 0.5, "replicating": false},
		{"from": "gra-1", "state": "never_connected", "rtt_ms": nil, "error": "connection refused"},
	}}
	services := []Service{
		serve(t, "transport", service{status: control.Status{Service: "transport", State: control.Draining, Version: "v1"}}),
		serve(t, "replicator", service{status: control.Status{Service: "replicator", State: control.Serving, Detail: detail}}),
		serve(t, "dns", service{sick: errors.New("no map yet")}),
		{"store", "/nowhere/control.sock"},
		{"app", hanging.Addr().String()},
	}
	var clients []asked
	for _, s := range services {
		clients = append(clients, newAsked(s))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	got, pairs := askAll(ctx, clients)
	if got[0].State != control.Draining || !got[0].Healthy || got[0].Version != "v1" {
		t.Errorf("transport %+v", got[0])
	}
	if got[2].Healthy || got[2].Reason != "no map yet" {
		t.Errorf("dns %+v", got[2])
	}
	for _, i := range []int{3, 4} {
		if got[i].Healthy || !strings.Contains(got[i].Reason, "does not answer") || got[i].Name != services[i].Name {
			t.Errorf("%+v", got[i])
		}
	}
	want := []agents.Pair{{From: "fsn-2", State: "connected", RTTMs: f(1.5), OffsetMs: f(-0.25), AgeSec: f(0.5)}, {From: "gra-1", State: "never_connected"}}
	if !slices.EqualFunc(pairs, want, samePair) {
		t.Errorf("pairs %+v", pairs)
	}
}

func samePair(a, b agents.Pair) bool {
	same := func(a, b *float64) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
	return a.From == b.From && a.State == b.State && a.Replicating == b.Replicating && same(a.RTTMs, b.RTTMs) &&
		same(a.OffsetMs, b.OffsetMs) && same(a.AgeSec, b.AgeSec) && same(a.StalenessSec, b.StalenessSec)
}

func TestPairsThatCannotBeReadAreTheReplicatorsFault(t *testing.T) {
	for name, detail := range map[string]any{
		"not a list": map[string]any{"pairs": "many"}, "no peer": map[string]any{"pairs": []any{map[string]any{"state": "connected"}}},
		"no object": []int{1}, "no state": map[string]any{"pairs": []any{map[string]any{"from": "fsn-2"}}},
	} {
		s := agents.Service{Name: "replicator", Healthy: true}
		if pairs := pairsOf(control.Status{Detail: detail}, &s); len(pairs) != 0 || s.Healthy || !strings.Contains(s.Reason, "pairs cannot be read") {
			t.Errorf("%s: %+v, %+v", name, pairs, s)
		}
	}
}
