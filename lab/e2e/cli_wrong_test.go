package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
)

// wrongInput is something an operator gets wrong, and the call that must say so.
type wrongInput struct {
	name string
	make func(t *testing.T, w *cliWorld)
	args []string
	code int
}

func edits(old, new string) func(*testing.T, *cliWorld) {
	return func(t *testing.T, w *cliWorld) { w.edit(t, old, new) }
}

func sets(name, value string) func(*testing.T, *cliWorld) {
	return func(_ *testing.T, w *cliWorld) { w.env[name] = value }
}

func removes(path string) func(*testing.T, *cliWorld) {
	return func(t *testing.T, w *cliWorld) { must(t, os.RemoveAll(w.path(path))) }
}

func asIs(*testing.T, *cliWorld) {}

// Every one must change nothing: neither at the provider nor in the folder, but for .fleet, where the attempt is noted.
var wrongInputs = []wrongInput{
	{"unknown-key", edits("domain:", "colour: blue\ndomain:"), []string{"plan"}, 1},
	{"several-problems", edits("  - name: fsn\n    place: {lat: 50.48", "  - name: FSN\n    place: {lat: 95"), []string{"plan"}, 1},
	{"duplicate-node", edits("      - name: fsn-2", "      - name: fsn-1"), []string{"plan"}, 1},
	{"bad-address", edits("203.0.113.10:8440", "203.0.113.300:8440"), []string{"plan"}, 1},
	{"later-version", edits("version: 1", "version: 2"), []string{"plan"}, 1},
	{"missing-token", sets("HCLOUD_TOKEN", ""), []string{"plan"}, 1},
	{"wrong-token", sets("HCLOUD_TOKEN", "another"), []string{"plan"}, 1},
	{"token-command-fails", edits("# providers:", "providers: {hetznercloud: {token_command: 'echo no vault here >&2; exit 4'}}\n# providers:"), []string{"plan"}, 1},
	{"wrong-passphrase", sets("FLEET_PASSPHRASE", "not the passphrase"), []string{"plan"}, 1},
	{"no-passphrase", sets("FLEET_PASSPHRASE", ""), []string{"plan"}, 1},
	{"no-such-pop", asIs, []string{"up", "gra", "--yes"}, 1},
	{"no-such-node-ssh", asIs, []string{"ssh", "fsn-9"}, 1},
	{"no-such-node-unlock", asIs, []string{"unlock", "fsn-9"}, 1},
	{"no-such-node-down", asIs, []string{"down", "fsn-9", "--yes"}, 1},
	{"no-fleet-file", removes("fleet.yaml"), []string{"plan"}, 1},
	{"no-vault", removes("secrets"), []string{"plan"}, 1},
	{"vault-of-another-fleet", otherVault, []string{"plan"}, 1},
	{"init-bad-name", asIs, []string{"init", "My Fleet", "demo.test"}, 1},
	{"init-short-passphrase", func(t *testing.T, w *cliWorld) {
		removes("secrets")(t, w)
		w.env["FLEET_PASSPHRASE"] = "short"
	}, []string{"init", "demo", "demo.test"}, 1},
	{"image-digest", damageImage, []string{"up", "--yes"}, 1},
	{"clock-off", clockOff, []string{"plan"}, 1},
	{"release-missing", removes("releases/current"), []string{"plan"}, 1},
	{"release-empty", func(t *testing.T, w *cliWorld) {
		removes("releases/current/bin")(t, w)
	}, []string{"plan"}, 1},
	{"no-terminal", asIs, []string{"up"}, 1},
	{"endpoint-unreachable", sets("HCLOUD_ENDPOINT", "http://127.0.0.1:1/v1"), []string{"plan"}, 1},
	{"endpoint-malformed", sets("HCLOUD_ENDPOINT", "ftp//nowhere"), []string{"plan"}, 1},
	{"proxy-malformed", sets(dial.EnvProxy, "127.0.0.1:1080"), []string{"plan"}, 1},
	{"pace-malformed", sets(pace.EnvPace, "leisurely"), []string{"plan"}, 1},
	{"unknown-flag", asIs, []string{"up", "--force"}, 1},
	{"unknown-verb", asIs, []string{"uup"}, 1},
	{"explain-unknown", asIs, []string{"explain", "77"}, 1},
	{"controller-port-taken", asIs, []string{"controller", "--listen", "$TAKEN"}, 1},
}

func TestCLIWrongInputs(t *testing.T) {
	t.Parallel()
	for _, c := range wrongInputs {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newCLIWorld(t, inprocess.Options{})
			c.make(t, w)
			args := append([]string(nil), c.args...)
			for i, a := range args {
				if a == "$TAKEN" {
					args[i] = takenPort(t)
				}
			}
			before := w.listing(t)
			o := w.want(t, c.code, args...)
			golden(t, "cli/wrong/"+c.name, w.scrub(o.stderr))
			if after := w.listing(t); after != before {
				t.Errorf("the folder changed\nbefore\n%safter\n%s", before, after)
			}
			if n := len(w.lab.Machines.Machines()); n != 0 {
				t.Errorf("%d servers were created", n)
			}
			if strings.Contains(o.stdout+o.stderr, passphrase) || strings.Contains(o.stdout+o.stderr, w.lab.Token) {
				t.Errorf("a secret was printed: %s", o)
			}
			asEvents(t, w, c, args)
		})
	}
}

// asEvents: the same wrong input with --json ends in an exit event that holds the message.
func asEvents(t *testing.T, w *cliWorld, c wrongInput, args []string) {
	t.Helper()
	if c.name != "unknown-key" && c.name != "unknown-flag" && c.name != "unknown-verb" {
		return // one path through the printer; three stand for all
	}
	events := w.want(t, c.code, append([]string{"--json"}, args...)...).events(t)
	if events[len(events)-1].Data["error"] == nil {
		t.Errorf("the exit event says no error: %v", events)
	}
}

func otherVault(t *testing.T, w *cliWorld) {
	removes("secrets")(t, w)
	_, err := vault.Create(w.path("secrets"), inventory.SecretText(passphrase), vault.Options{Fleet: "other", WorkFactor: 10})
	must(t, err)
}

// damageImage changes a byte of every cached image: one of each kernel.
func damageImage(t *testing.T, w *cliWorld) {
	found, err := filepath.Glob(filepath.Join(w.cache, "image", "*", "image.tar.zst"))
	must(t, err)
	if len(found) == 0 {
		t.Fatal("no image in the cache")
	}
	for _, path := range found {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("X"), 1000)
		must(t, err)
		must(t, f.Close())
	}
}

// clockOff puts an endpoint in place whose clock is far ahead of ours.
func clockOff(t *testing.T, w *cliWorld) {
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Date", time.Now().Add(7*time.Hour).UTC().Format(http.TimeFormat))
		rw.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(api.Close)
	w.env["HCLOUD_ENDPOINT"] = api.URL + "/v1"
}

func takenPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// listing names every file of the folder with its digest, but for .fleet.
func (w *cliWorld) listing(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".fleet" {
				return fs.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(path)
		if rel, _ := filepath.Rel(w.dir, path); !strings.HasPrefix(rel, "secrets/") {
			fmt.Fprintf(&b, "%s %x\n", rel, sha256.Sum256(data))
		}
		return err
	})
	must(t, err)
	return b.String()
}

// What only the provider or the machine itself can know: no such type, too small a disk, somebody else's system on it.
// No disk is wiped.
func TestCLIWrongMachines(t *testing.T) {
	t.Parallel()
	t.Run("disk-too-small", func(t *testing.T) {
		t.Parallel()
		w := newCLIWorld(t, inprocess.Options{})
		w.edit(t, "      - name: fsn-2\n", "")
		w.edit(t, "server_type: cx23", "server_type: lab-tiny")
		w.refused(t, w.want(t, 1, "up", "--yes"), "cli/wrong/disk-too-small")
	})
	t.Run("unknown-server-type", func(t *testing.T) {
		t.Parallel()
		w := newCLIWorld(t, inprocess.Options{})
		w.edit(t, "server_type: cx23", "server_type: cx9999")
		w.refused(t, w.want(t, 1, "up", "--yes"), "cli/wrong/unknown-server-type")
	})
	t.Run("foreign-disk", func(t *testing.T) {
		t.Parallel()
		w := newCLIWorld(t, inprocess.Options{Timing: scripted.Timing{BootRescue: 2 * time.Second}})
		w.edit(t, "      - name: fsn-2\n", "")
		c := w.start(t, "up", "--yes", "--json")
		c.until(t, func(e cliEvent) bool { return e.Kind == "node" && e.Data["op"] == "enter-rescue" })
		w.lab.Machine(t, "demo-fsn-1").PlantForeign(0, "linux: xfs, somebody's database")
		o := c.wait(t)
		if o.code != 1 {
			t.Fatal(o)
		}
		w.refused(t, o, "cli/wrong/foreign-disk")
	})
}

// refused compares what was said in the end and demands that no disk was touched.
func (w *cliWorld) refused(t *testing.T, o outcome, name string) {
	t.Helper()
	if at := strings.Index(o.stderr, "✗"); at >= 0 {
		golden(t, name, w.scrub(o.stderr[at:]))
	} else {
		t.Errorf("no node is named as failed: %s", o)
	}
	for _, m := range w.lab.Machines.Machines() {
		if len(m.Ledger().Wipes()) > 0 {
			t.Errorf("%s was wiped", m.Label())
		}
	}
}

// fleet-lab's API port is taken: it says by what name, and ends.
func TestCLILabPortTaken(t *testing.T) {
	w := newCLIWorld(t, inprocess.Options{})
	lab := *w
	lab.bin = filepath.Join(filepath.Dir(w.bin), "fleet-lab")
	o := lab.run(t, "up", "--foreground", "--scripted", "--dir", t.TempDir(), "--api", takenPort(t), "--socks", "127.0.0.1:0", "--forward", "")
	if o.code == 0 {
		t.Fatal(o)
	}
	last := o.stderr[strings.LastIndexByte(strings.TrimRight(o.stderr, "\n"), '\n')+1:]
	golden(t, "cli/wrong/lab-port-taken", w.scrub(last))
	if !bytes.Contains([]byte(last), []byte("address already in use")) {
		t.Errorf("the reason is not in the last line: %s", o)
	}
}
