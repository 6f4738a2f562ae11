//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"popfleet/fleet/controller"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab"
)

// The machine tests walk the product's main path on machines that really boot, with the binaries in bin/ as a user has
// them: no room is called in-process but the vault (to know what must not leak) and the lab's control socket.

// site is a lab of its own, an operator's folder and the binaries.
type site struct {
	root, dir, labDir string
	env               []string
	lab               *lab.Client
	ca                string
	stopController    func()
	upBegan, serving  time.Time // the run from nothing to serving, and what it computed itself
	upCPU             time.Duration

	mu       sync.Mutex
	captured bytes.Buffer // everything every command printed, for the search for secrets; guarded by mu
}

const (
	labAPI   = "127.0.0.1:18080"
	labSocks = "127.0.0.1:11080"
	labSpace = "fleet-e2e"
)

// newSite starts a lab on its own ports and namespace, beside a demo that may be running.
func newSite(t *testing.T, more ...string) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("machine tests need root: the lab makes machines and a network namespace (make e2e)")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := &site{root: root, dir: filepath.Join(t.TempDir(), "fleet"), labDir: filepath.Join(t.TempDir(), "lab")}
	began := time.Now()
	w.labCommand(t, append([]string{"up", "--api", labAPI, "--socks", labSocks, "--forward", "", "--namespace", labSpace}, more...)...)
	t.Cleanup(func() { w.labCommand(t, "down", "--namespace", labSpace) })
	w.lab = lab.Connect(filepath.Join(w.labDir, "control.sock"))
	status, err := w.lab.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	figure(t, "lab up ("+status.Kind+")", time.Since(began))
	w.env = append(os.Environ(), append(status.Env, "FLEET_PASSPHRASE="+machinesPassphrase)...)
	return w
}

const machinesPassphrase = "a long enough passphrase for the machine tests"

// figure prints a measurement that the closing note quotes.
func figure(t *testing.T, what string, took time.Duration) {
	t.Helper()
	t.Logf("FIGURE %-58s %6.1f s", what, took.Seconds())
}

func (w *site) bin(name string) string { return filepath.Join(w.root, "bin", name) }

func (w *site) labCommand(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command(w.bin("fleet-lab"), append([]string{"--dir", w.labDir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("fleet-lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// result is how a command ended.
type result struct {
	code        int
	out, errOut string
	took, cpu   time.Duration
}

// fleet runs one command line of the operator, bounded.
func (w *site) fleet(t *testing.T, limit time.Duration, args ...string) result {
	t.Helper()
	return w.watch(t, limit, nil, args...)
}

// watch runs a command and calls see with each line of its stdout; see answers true to have it killed with -9.
func (w *site) watch(t *testing.T, limit time.Duration, see func(line string) (kill bool), args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.bin("fleet"), append([]string{"-C", w.dir}, args...)...)
	cmd.Env = w.env
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		out.WriteString(lines.Text() + "\n")
		if see != nil && see(lines.Text()) {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("fleet %s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("fleet %s did not end within %s\n%s\n%s", strings.Join(args, " "), limit, tail(out.String()), tail(errOut.String()))
	}
	w.mu.Lock()
	fmt.Fprintf(&w.captured, "%s\n%s\n", out.String(), errOut.String())
	w.mu.Unlock()
	ended := cmd.ProcessState
	return result{ended.ExitCode(), out.String(), errOut.String(), time.Since(began), ended.UserTime() + ended.SystemTime()}
}

func (r result) want(t *testing.T, code int, what string) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("%s: exit %d, want %d\nstdout:\n%s\nstderr:\n%s", what, r.code, code, tail(r.out), tail(r.errOut))
	}
	return r
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// prepare makes the operator's folder of the demo's fleet, with the release that was built.
func (w *site) prepare(t *testing.T) {
	t.Helper()
	bin := filepath.Join(w.dir, "releases", "current", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fleet-agent", "fleet-transport", "fleet-dns", "fleet-replicator", "fleet-store", "comments"} {
		data, err := os.ReadFile(w.bin(name))
		if err != nil {
			t.Fatalf("%v (make build)", err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	demo, err := os.ReadFile(filepath.Join(w.root, "examples", "fleets", "demo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "fleet.yaml", demo)
	w.fleet(t, time.Minute, "init", "demo", "demo.test").want(t, 0, "init")
	ca := w.fleet(t, time.Minute, "ca").want(t, 0, "ca")
	w.ca = w.write(t, "ca.crt", []byte(ca.out))
}

func (w *site) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// startController runs the controller at the lab's own address; the test's end stops it, if nobody did before.
func (w *site) startController(t *testing.T) {
	log, err := os.OpenFile(filepath.Join(w.dir, "controller.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(w.bin("fleet-lab"), "--dir", w.labDir, "exec", "--namespace", labSpace, "--", w.bin("fleet"), "-C", w.dir, "controller")
	// It lives in the machines' network, where the providers do not answer: without credentials it does not wait for them.
	cmd.Env = append(append([]string{}, w.env...), "FLEET_PROXY=", "HCLOUD_TOKEN=", "HROBOT_USER=", "HROBOT_PASSWORD=",
		"OVH_APPLICATION_KEY=", "OVH_APPLICATION_SECRET=", "OVH_CONSUMER_KEY=")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.stopController = sync.OnceFunc(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // the lab's exec and the controller in it
		cmd.Wait()
		log.Close()
	})
}

// status is what the controller knows.
func (w *site) status(t *testing.T, args ...string) controller.Status {
	t.Helper()
	r := w.fleet(t, 15*time.Minute, append([]string{"status", "--json"}, args...)...).want(t, 0, "status")
	for _, line := range strings.Split(r.out, "\n") {
		var e struct {
			Kind string
			Data controller.Status
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "status" {
			return e.Data
		}
	}
	t.Fatalf("no status event in:\n%s", r.out)
	return controller.Status{}
}

// node is one node's row of the status.
func node(t *testing.T, s controller.Status, name string) controller.Node {
	t.Helper()
	for _, n := range s.Nodes {
		if n.Node == name {
			return n
		}
	}
	t.Fatalf("status has no %s", name)
	return controller.Node{}
}

// client asks a node's edge over TLS, believing the fleet's authority only, and returns the body.
func (w *site) client(t *testing.T, address string, args ...string) string {
	t.Helper()
	argv := append([]string{"-sS", "--fail-with-body", "--max-time", "90", "--socks5-hostname", labSocks, "--cacert", w.ca,
		"--connect-to", "demo.test:443:" + address + ":443"}, args...)
	out, err := exec.Command("curl", argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// dig asks a node's DNS server from inside the machines' network.
func (w *site) dig(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(w.bin("fleet-lab"), append([]string{"--dir", w.labDir, "exec", "--namespace", labSpace, "--", "dig",
		"+timeout=10", "+tries=3"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// eventually asks until ok answers "", which names what is missing, or the deadline ends the test.
func eventually(t *testing.T, limit time.Duration, ok func() string) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		missing := ok()
		if missing == "" {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("after %s: %s", limit, missing)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-tick.C:
		}
	}
}

// servers asks the provider's API how many there are.
func servers(t *testing.T) int {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+labAPI+"/v1/servers", nil)
	req.Header.Set("Authorization", "Bearer lab-token")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list struct{ Servers []struct{ ID int64 } }
	data, err := io.ReadAll(res.Body)
	if err != nil || json.Unmarshal(data, &list) != nil {
		t.Fatalf("list servers: %v\n%s", err, data)
	}
	return len(list.Servers)
}

// openVault opens the operator's vault as the test's own knowledge of what must stay secret.
func (w *site) openVault(t *testing.T) *vault.Vault {
	t.Helper()
	v, err := vault.Open(filepath.Join(w.dir, "secrets"), inventory.SecretText(machinesPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
