package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/provision/image"
)

// cliWorld is an operator's folder, a lab of scripted machines, and the real fleet binary between them.
type cliWorld struct {
	lab   *inprocess.Lab
	bin   string
	dir   string // the operator's folder
	cache string // FLEET_CACHE, with an image that nothing boots
	env   map[string]string
}

const cliDomain = "demo.test"

// newCLIWorld lays out a folder as `fleet init` would, with a vault that opens quickly, a release and an image.
func newCLIWorld(t testing.TB, o inprocess.Options) *cliWorld {
	t.Helper()
	w := bareCLIWorld(t, o)
	w.write(t, "fleet.yaml", string(inventory.Template("demo", cliDomain)))
	_, err := vault.Create(filepath.Join(w.dir, "secrets"), inventory.SecretText(passphrase), vault.Options{Fleet: "demo", WorkFactor: 10})
	must(t, err)
	w.serveEdges(t)
	return w
}

// bareCLIWorld has neither fleet.yaml nor vault.
func bareCLIWorld(t testing.TB, o inprocess.Options) *cliWorld {
	t.Helper()
	if o.Timing == (scripted.Timing{}) {
		o.Timing = quick
	}
	w := &cliWorld{bin: fleetBinary(t), lab: inprocess.Start(t, o), dir: filepath.Join(t.TempDir(), "fleet"), cache: t.TempDir()}
	must(t, os.MkdirAll(w.dir, 0o755))
	w.env = map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": t.TempDir(), "TMPDIR": t.TempDir(), "TZ": "UTC",
		"HCLOUD_ENDPOINT": w.lab.URL, "HCLOUD_TOKEN": w.lab.Token, dial.EnvProxy: w.lab.SocksURL,
		"FLEET_PASSPHRASE": passphrase, "FLEET_CACHE": w.cache, pace.EnvPace: "0.2",
	}
	archive := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(archive, []byte(strings.Repeat("image ", 50_000)), 0o600))
	for _, kernel := range []string{"cloud", "amd64"} { // a fleet with dedicated machines takes the larger one
		_, err := image.Adopt(t.Context(), image.Options{CacheDir: w.cache, Flavour: kernel}, archive)
		must(t, err)
	}
	for _, name := range []string{"fleet-agent", "fleet-transport", "fleet-dns", "fleet-replicator", "fleet-store", "comments"} {
		w.write(t, "releases/current/bin/"+name, "program "+name)
		must(t, os.Chmod(w.path("releases/current/bin", name), 0o755))
	}
	return w
}

func (w *cliWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *cliWorld) write(t testing.TB, name, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	must(t, os.WriteFile(w.path(name), []byte(content), 0o644))
}

// edit replaces text in fleet.yaml that must be there.
func (w *cliWorld) edit(t testing.TB, old, new string) {
	t.Helper()
	text, err := os.ReadFile(w.path("fleet.yaml"))
	must(t, err)
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("fleet.yaml has no %q", old)
	}
	w.write(t, "fleet.yaml", strings.Replace(string(text), old, new, 1))
}

func (w *cliWorld) openVault(t testing.TB) *vault.Vault {
	t.Helper()
	v, err := vault.Open(w.path("secrets"), inventory.SecretText(passphrase))
	must(t, err)
	return v
}

// serveEdges answers port 443 of every machine as a node's edge would, with a certificate of the fleet's authority:
// scripted machines have no services, and `up` asks the edge from outside before it says serving.
func (w *cliWorld) serveEdges(t testing.TB) {
	t.Helper()
	leaf, err := w.openVault(t).Leaf(vault.LeafSpec{Service: "transport", Node: "edge", DNSNames: []string{cliDomain}})
	must(t, err)
	cert, err := leaf.TLS()
	must(t, err)
	edge := &edge{conns: make(chan net.Conn), gone: make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok") }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: nil}
	var work sync.WaitGroup
	work.Go(func() { _ = server.ServeTLS(edge, "", "") })
	work.Go(func() { edge.attach(w.lab.Machines) })
	t.Cleanup(func() { edge.Close(); server.Close(); work.Wait() })
}

// edge is a listener that machines hand their connections to.
type edge struct {
	conns chan net.Conn
	gone  chan struct{}
	once  sync.Once
}

// attach gives every machine that appears a port 443.
func (e *edge) attach(b *scripted.Backend) {
	known := map[*scripted.Machine]bool{}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, m := range b.Machines() {
			if !known[m] {
				known[m] = true
				m.Serve(443, e.take)
			}
		}
		select {
		case <-e.gone:
			return
		case <-tick.C:
		}
	}
}

func (e *edge) take(c net.Conn) {
	closed := make(chan struct{})
	select {
	case e.conns <- &notedConn{Conn: c, closed: closed}:
		<-closed
	case <-e.gone:
		c.Close()
	}
}

func (e *edge) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.gone:
		return nil, net.ErrClosed
	}
}

func (e *edge) Close() error   { e.once.Do(func() { close(e.gone) }); return nil }
func (e *edge) Addr() net.Addr { return &net.TCPAddr{} }

// notedConn tells when it was closed.
type notedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *notedConn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// outcome is how one call of the binary ended.
type outcome struct {
	code           int // −9 when a signal of ours ended it
	stdout, stderr string
	took           time.Duration
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d after %s\n--- stdout\n%s--- stderr\n%s", o.code, o.took.Round(time.Millisecond), o.stdout, o.stderr)
}

// call is a running fleet process. Its stdout is read line by line while it runs.
type call struct {
	cmd    *exec.Cmd
	began  time.Time
	stderr bytes.Buffer
	stdout bytes.Buffer // whole only after wait
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// patience bounds every call on a busy machine.
const patience = 2 * time.Minute

func (w *cliWorld) start(t testing.TB, args ...string) *call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	c := &call{cancel: cancel, began: time.Now()}
	c.cmd = exec.CommandContext(ctx, w.bin, args...)
	c.cmd.Dir = w.dir
	for _, k := range slices.Sorted(maps.Keys(w.env)) {
		c.cmd.Env = append(c.cmd.Env, k+"="+w.env[k])
	}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	c.lines = bufio.NewScanner(io.TeeReader(out, &c.stdout))
	c.lines.Buffer(nil, 8<<20)
	must(t, c.cmd.Start())
	return c
}

// wait reads the rest and reaps the process.
func (c *call) wait(t testing.TB) outcome {
	t.Helper()
	defer c.cancel()
	for c.lines.Scan() {
	}
	err := c.cmd.Wait()
	o := outcome{stdout: c.stdout.String(), stderr: c.stderr.String(), took: time.Since(c.began)}
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended) && ended.Exited():
		o.code = ended.ExitCode()
	case errors.As(err, &ended):
		o.code = -9
	default:
		must(t, err)
	}
	return o
}

// run calls the binary and waits for its end.
func (w *cliWorld) run(t testing.TB, args ...string) outcome {
	t.Helper()
	return w.start(t, args...).wait(t)
}

// want runs and demands an exit code.
func (w *cliWorld) want(t testing.TB, code int, args ...string) outcome {
	t.Helper()
	o := w.run(t, args...)
	if o.code != code {
		t.Fatalf("fleet %s: expected exit %d, got %s", strings.Join(args, " "), code, o)
	}
	return o
}

// cliEvent is a line of --json, read by a type of the test's own.
type cliEvent struct {
	V    int
	Time time.Time
	Kind string
	Node string
	Data map[string]any
}

func parseEvent(line []byte) (e cliEvent, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return e, d.Decode(&e)
}

// events demands that every line of stdout is a versioned event and that the last one is exit, with the right code.
func (o outcome) events(t testing.TB) (all []cliEvent) {
	t.Helper()
	for line := range strings.Lines(o.stdout) {
		e, err := parseEvent([]byte(line))
		if err != nil || e.V != 1 || e.Kind == "" || e.Time.IsZero() {
			t.Fatalf("not an event of version 1: %q: %v", line, err)
		}
		all = append(all, e)
	}
	if len(all) == 0 || all[len(all)-1].Kind != "exit" || all[len(all)-1].Data["code"] != float64(o.code) {
		t.Fatalf("the last event is not exit %d: %s", o.code, o)
	}
	return all
}

// ledgers add up what happened to the machines so far: a run that changes nothing leaves the sum as it is.
func (w *cliWorld) ledgers() (sum string) {
	for _, m := range w.lab.Machines.Machines() {
		l := m.Ledger()
		sum += fmt.Sprintf("%s: %d wipes, %d installs, %d unlocks, %d boots, %d seals, %d applies\n", m.Label(),
			len(l.Wipes()), len(l.Installs()), len(l.Unlocks()), len(l.Boots()), l.Seals(), l.Applies())
	}
	return sum
}

// exactlyOnce demands so many servers ever created, and one wipe per disk.
func (w *cliWorld) exactlyOnce(t testing.TB, servers int) {
	t.Helper()
	if got := len(w.lab.Machines.Machines()); got != servers {
		t.Errorf("%d servers were created, wanted %d", got, servers)
	}
	for _, m := range w.lab.Machines.Machines() {
		for _, serial := range m.Serials() {
			if n := m.Ledger().Wipes()[serial]; n != 1 {
				t.Errorf("%s: disk %s was wiped %d times", m.Label(), serial, n)
			}
		}
	}
}
