package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/internal/journal"
	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/playbooks/spec"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// world is an operator's folder and a lab of scripted machines, all quick.
type world struct {
	lab      *inprocess.Lab
	vault    *vault.Vault
	vaultDir string
	driver   *hetznercloud.Driver
	nodes    []lifecycle.Node
	deps     lifecycle.Deps
	agent    remote.Agent

	mu     sync.Mutex
	events []lifecycle.Event // guarded by mu
}

// quick are machines that boot in milliseconds; the pace shrinks every patience to match.
var quick = scripted.Timing{BootRescue: 5 * time.Millisecond, BootDisk: 5 * time.Millisecond, BootSystem: 10 * time.Millisecond,
	Panic: 20 * time.Millisecond}

const quickPace = pace.Pace(0.05) // 90 s become 4.5 s

func newWorld(t testing.TB, o inprocess.Options, nodes int) *world {
	t.Helper()
	if o.Timing == (scripted.Timing{}) {
		o.Timing = quick
	}
	w := &world{lab: inprocess.Start(t, o)}
	var err error
	w.vaultDir = filepath.Join(t.TempDir(), "secrets")
	w.vault, err = vault.Create(w.vaultDir, inventory.SecretText(passphrase), vault.Options{Fleet: "demo", WorkFactor: 10})
	must(t, err)
	w.connectDriver(t, quickPace)
	w.nodes = nodesNamed(nodes)
	w.agent = tempAgent(t)
	w.deps = w.newDeps(t)
	return w
}

const passphrase = "correct horse battery"

func nodesNamed(n int) []lifecycle.Node {
	var out []lifecycle.Node
	for i := range n {
		out = append(out, lifecycle.Node{Name: fmt.Sprintf("fsn-%d", i+1), PoP: "fsn",
			Machine: inventory.Machine{Provider: "hetznercloud", ServerType: "cx23", Location: "fsn1"}})
	}
	return out
}

func (w *world) connectDriver(t testing.TB, p pace.Pace) {
	t.Helper()
	var err error
	w.driver, err = hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(w.lab.Token), Endpoint: w.lab.URL,
		Pace: p, CallTimeout: 3 * time.Second, Budget: 10 * time.Second, Backoff: 5 * time.Millisecond})
	must(t, err)
	t.Cleanup(w.driver.Close)
}

func (w *world) newDeps(t testing.TB) lifecycle.Deps {
	t.Helper()
	d, err := dial.New(w.lab.SocksURL)
	must(t, err)
	image := strings.Repeat("image ", 50_000)
	blobs := texts{digest(image): image}
	return lifecycle.Deps{
		Fleet: "demo", Operator: "tester", Run: "run-" + t.Name(), Keys: w.vault, Memory: w.vault, Journal: &memoryJournal{},
		Provider: func(string) (provider.Provider, error) { return w.driver.Machines(), nil },
		Compiler: &compiler{content: "first"}, Agent: w.agent, Dial: d, Pace: quickPace, Poll: 5 * time.Millisecond,
		Image: func(context.Context) (lifecycle.Image, error) {
			return lifecycle.Image{Blob: spec.Blob{SHA256: digest(image), SizeBytes: int64(len(image))}, Blobs: blobs}, nil
		},
		Rent:     w.rent,
		Progress: w.hear,
	}
}

func (w *world) rent(ctx context.Context, node string) error {
	_, err := w.driver.EnsureServer(ctx, hetznercloud.ServerSpec{Name: node, ServerType: "cx23", Location: "fsn1", Image: "debian-12",
		Labels: hetznercloud.Labels("demo", node, node)})
	return err
}

func (w *world) hear(e lifecycle.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// up runs Up and fails the test when it takes for ever.
func (w *world) up(t testing.TB) []lifecycle.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results, err := lifecycle.Up(ctx, w.deps, w.nodes)
	must(t, err)
	return results
}

// until waits for a node to be seen at a stage.
func (w *world) until(t testing.TB, node string, stage lifecycle.Stage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, n := range w.nodes {
		for n.Name == node {
			o, err := lifecycle.Observe(ctx, w.deps, n)
			must(t, err)
			if o.Stage == stage {
				return
			}
		}
	}
}

// serving demands that every node serves.
func (w *world) serving(t testing.TB, results []lifecycle.Result) {
	t.Helper()
	for _, r := range results {
		if r.Err != nil || r.Stage != lifecycle.Serving {
			t.Fatalf("%s is %s: %v\n%s", r.Node, r.Stage, r.Err, w.story(r.Node))
		}
	}
}

// story is what a person would have seen of one node.
func (w *world) story(node string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		if e.Node == node && e.Kind != lifecycle.EventProgress {
			fmt.Fprintf(&b, "%s %s %s %s %s\n", e.Time.Format("05.000"), e.Kind, e.Stage, e.Op, e.Text)
		}
	}
	return b.String()
}

// exactlyOnce demands one server per node, and one wipe per disk.
func (w *world) exactlyOnce(t testing.TB) {
	t.Helper()
	if got := len(w.lab.Machines.Machines()); got != len(w.nodes) {
		t.Errorf("%d servers were created, wanted %d", got, len(w.nodes))
	}
	for _, n := range w.nodes {
		m := w.lab.Machine(t, n.Name)
		wipes := m.Ledger().Wipes()
		for _, serial := range m.Serials() {
			if wipes[serial] != 1 {
				t.Errorf("%s: disk %s was wiped %d times\n%s", n.Name, serial, wipes[serial], w.story(n.Name))
			}
		}
	}
}

// compiler gives every node one file and a release of one blob.
type compiler struct{ content string }

func (c *compiler) Compile(_ context.Context, node string) (spec.Node, remote.Blobs, error) {
	binary := "binary of " + c.content
	return spec.Node{
		Version: 1, Name: node,
		Files: []spec.File{{Path: "/etc/fleet/app.json", Mode: 0o644, Owner: "root", Group: "root", Content: []byte(c.content)}},
		Release: &spec.Release{Digest: digest(c.content), Files: []spec.ReleaseFile{
			{Path: "bin/app", Mode: 0o755, SHA256: digest(binary), SizeBytes: int64(len(binary))}}},
		Checks: []spec.Check{{Service: "app", Socket: "/run/fleet-app/control.sock", TimeoutSec: 5}},
	}, texts{digest(binary): binary}, nil
}

type texts map[string]string

func (b texts) Open(d string) (io.ReadCloser, int64, error) {
	text, ok := b[d]
	if !ok {
		return nil, 0, fmt.Errorf("no blob %s", d)
	}
	return io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// memoryJournal keeps what a journal would.
type memoryJournal struct {
	mu    sync.Mutex
	steps []journal.Step
	text  bytes.Buffer
}

var errKilled = fmt.Errorf("killed by the test")

func (j *memoryJournal) keep(format string, args ...any) error {
	_, err := fmt.Fprintf(&j.text, format+"\n", args...)
	return err
}

func (j *memoryJournal) Begin(_ context.Context, s journal.Step) (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, s)
	return int64(len(j.steps)), j.keep("begin %s %s %v", s.Node, s.Op, s.Intent)
}

func (j *memoryJournal) End(_ context.Context, id int64, o journal.Outcome) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.keep("end %d %s %v %s", id, o.Status, o.Evidence, o.Err)
}

func (j *memoryJournal) Observe(_ context.Context, _, node, stage string, evidence any) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.keep("observe %s %s %v", node, stage, evidence)
}

func tempAgent(t testing.TB) remote.Agent {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fleet-agent")
	must(t, os.WriteFile(path, []byte(strings.Repeat("agent ", 10_000)), 0o755))
	a, err := remote.AgentFile(path)
	must(t, err)
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onBegin does something when the journal first hears of an operation.
type onBegin struct {
	*memoryJournal
	op   string
	do   func()
	once sync.Once
}

func (j *onBegin) Begin(ctx context.Context, s journal.Step) (int64, error) {
	if s.Op == j.op {
		j.once.Do(j.do)
	}
	return j.memoryJournal.Begin(ctx, s)
}
