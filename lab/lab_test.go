package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/lab/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// played is a lab of scripted machines on ports of its own. Unix socket paths are short, so the folder must be.
func played(t *testing.T) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := Default()
	cfg.RobotAPI, cfg.OVHAPI = "127.0.0.1:0", "127.0.0.1:0"
	cfg.API, cfg.Socks, cfg.Forward, cfg.Dir, cfg.Scripted, cfg.Speed = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", dir, true, 1000
	return cfg
}

func up(t *testing.T, cfg Config) (Status, *Client, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Status, 1), make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, Deps{Ready: func(s Status) { ready <- s }}) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case s := <-ready:
		return s, Connect(cfg.Socket()), stop
	case err := <-ended:
		stopped = true
		t.Fatalf("lab ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("lab is not ready")
	}
	panic("unreachable")
}

func call(t *testing.T, s Status, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, s.API+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer lab-token")
	res, err := (&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestDaemon(t *testing.T) {
	cfg := played(t)
	s, c, _ := up(t, cfg)
	ctx := t.Context()
	if code, body := call(t, s, "POST", "/servers", `{"name":"a-1","server_type":"cx23","image":"debian-12"}`); code != 201 {
		t.Fatalf("create: %d %s", code, body)
	}
	stage := func(want string) func() bool {
		return func() bool {
			got, err := c.Status(ctx)
			return err == nil && len(got.Machines) == 1 && got.Machines[0].Stage == want && got.Machines[0].Status == "running"
		}
	}
	until(t, "the machine's image", stage("factory"))
	if _, err := c.AddFault(ctx, faults.Fault{Kind: "nonsense"}); err == nil || !strings.Contains(err.Error(), "no such kind") {
		t.Errorf("a fault that does not exist: %v", err)
	}
	f, err := c.AddFault(ctx, faults.Fault{Kind: faults.Conflict, Call: "list_servers"})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := call(t, s, "GET", "/servers", ""); code != http.StatusConflict {
		t.Errorf("list with a fault: %d", code)
	}
	if n, err := c.ClearFault(ctx, f.ID); n != 1 || err != nil {
		t.Errorf("clear: %d, %v", n, err)
	}
	if err := c.Power(ctx, "a-1", "cycle"); err != nil {
		t.Error(err)
	}
	until(t, "the second boot", func() bool { l, err := c.Ledger(ctx, "a-1"); return err == nil && len(l.Boots) == 2 })
	if err := c.Power(ctx, "b-1", "cycle"); err == nil {
		t.Error("power of a machine that is not there")
	}
	if err := Run(ctx, cfg, Deps{}); err == nil || !strings.Contains(err.Error(), "already up") {
		t.Errorf("a second lab in the same folder: %v", err)
	}
	if err := c.Down(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, "the folder's removal", func() bool { _, err := os.Stat(cfg.Dir); return errors.Is(err, os.ErrNotExist) })
	until(t, "the end", func() bool { _, err := c.Status(ctx); return errors.Is(err, ErrNotUp) })
}

func TestForwardLeadsNowhereWithoutMachines(t *testing.T) {
	s, _, _ := up(t, played(t))
	c, err := net.Dial("tcp", s.Forward)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("something answered")
	}
}

func TestDedicatedMachines(t *testing.T) {
	cfg := played(t)
	cfg.Robot, cfg.OVH = 2, 1
	s, c, stop := up(t, cfg)
	if len(s.Machines) != 3 {
		t.Fatalf("%d machines", len(s.Machines))
	}
	for i, want := range []Machine{
		{Provider: "hetznerrobot", ID: "321", Address4: "198.19.0.2", Address6: "2001:db8:2:1::1"},
		{Provider: "hetznerrobot", ID: "322", Address4: "198.19.0.3", Address6: "2001:db8:2:2::1"},
		{Provider: "ovh", ID: "ns1001.ip-198-19-1.eu", Address4: "198.19.1.2", Address6: "2001:db8:3:1::1"},
	} {
		got := s.Machines[i]
		if got.Provider != want.Provider || got.ID != want.ID || got.Address4 != want.Address4 || got.Address6 != want.Address6 || len(got.Serials) != 2 {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	env := strings.Join(s.Env, " ")
	for _, name := range []string{"HCLOUD_TOKEN=", "HROBOT_USER=", "HROBOT_PASSWORD=", "HROBOT_ENDPOINT=http://127.0.0.1:",
		"OVH_ENDPOINT=http://127.0.0.1:", "/1.0", "OVH_APPLICATION_KEY=", "OVH_APPLICATION_SECRET=", "OVH_CONSUMER_KEY="} {
		if !strings.Contains(env, name) {
			t.Errorf("no %s in %s", name, env)
		}
	}
	for _, name := range []string{"322", "ns1001.ip-198-19-1.eu", "198.19.0.2"} {
		until(t, "a rented machine's start", func() bool {
			l, err := c.Ledger(t.Context(), name)
			return err == nil && l.Stage == "factory"
		})
	}
	res, err := http.Get(s.RobotAPI + "/server")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("robot without a password: %s", res.Status)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the folder's removal", func() bool { _, err := os.Stat(cfg.Dir); return errors.Is(err, os.ErrNotExist) })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestStopLeavesTheStateForTheNext(t *testing.T) {
	cfg := played(t)
	s, _, stop := up(t, cfg)
	call(t, s, "POST", "/ssh_keys", `{"name":"k","public_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4n5xVtIu5R3XhXyBbZJgUWlSIeN4yRJyUMTpyNyhaK"}`)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s, _, _ = up(t, cfg)
	if _, body := call(t, s, "GET", "/ssh_keys", ""); !strings.Contains(body, `"name":"k"`) {
		t.Errorf("after a restart: %s", body)
	}
}

func TestRefusesWhatCantWork(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, change := range map[string]func(*Config){
		"already in use (choose another with --api)": func(c *Config) { c.API = taken.Addr().String() },
		"loopback only":           func(c *Config) { c.Socks = "0.0.0.0:0" },
		"token is empty":          func(c *Config) { c.Token = "" },
		"too small to boot":       func(c *Config) { c.MemoryMB = 1 },
		"expected more than 0":    func(c *Config) { c.Speed = 0 },
		"expected 1 or 2":         func(c *Config) { c.Disks = 3 },
		"expected bios, uefi":     func(c *Config) { c.Firmware = "coreboot" },
		"expected up to":          func(c *Config) { c.OVH = 1000 },
		"expected an absolute pa": func(c *Config) { c.Dir = "here" },
	} {
		cfg := played(t)
		change(&cfg)
		if err := Run(t.Context(), cfg, Deps{}); err == nil || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

func TestRemoveFindsWhatIsLeft(t *testing.T) {
	for _, provider := range []string{"hcloud", "robot", "ovh"} {
		cfg := Default()
		cfg.Dir, cfg.Scripted = filepath.Join(t.TempDir(), "lab"), true
		if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cfg.statePath(provider), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Remove(t.Context(), cfg); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the books of %s are still there", provider)
		}
	}
}

func TestRemoveKeepsItsHandsOffOtherFolders(t *testing.T) {
	cfg := Default()
	cfg.Dir, cfg.Scripted = t.TempDir(), true
	mine := filepath.Join(cfg.Dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), cfg); err == nil {
		t.Error("a folder that is no lab's was removed")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}

// Whoever asks the lab to end hears that it does, every time.
func TestDownIsAnswered(t *testing.T) {
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			ended <- serveHTTP(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				cancel()
				runtime.Gosched()
				fmt.Fprint(w, "down")
			}), slog.New(slog.DiscardHandler))
		}()
		res, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		res.Body.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		cancel()
	}
	http.DefaultClient.CloseIdleConnections()
}
