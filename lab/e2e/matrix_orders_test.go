package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"popfleet/fleet/cli"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/provision/provider"
)

// What is ordered where: the least that each seller asks to be said.
var wishes = map[string][]string{
	provider.HetznerRobot: {"EX44", "--location", "FSN1"},
	provider.OVH: {"24sk10", "--eco", "--location", "gra", "--option", "ram-32g-ecc-2133-24sk10", "--option", "softraid-2x480ssd-24sk10",
		"--option", "bandwidth-300-24sk", "--setting", "dedicated_os=none_64.en", "--setting", "region=europe"},
}

// killedAnswered is a process that dies with the answer on its way to it, before it can write it down.
const killedAnswered = "killed-answered"

// buyer is an operator with a terminal, in front of a provider's shop.
type buyer struct {
	name string
	lab  *inprocess.Lab
	dir  string
	env  map[string]string
	at   *probe
	// answered kills once the answer that is being written is out.
	answered atomic.Bool
}

func newBuyer(t *testing.T, name string, p *probe) *buyer {
	t.Helper()
	b := &buyer{name: name, dir: filepath.Join(t.TempDir(), "fleet"), at: p}
	b.lab = inprocess.Start(t, inprocess.Options{Timing: quick, Robot: 1, OVH: 1, WrapRobot: b.wrap, WrapOVH: b.wrap})
	must(t, os.MkdirAll(b.dir, 0o755))
	must(t, os.WriteFile(filepath.Join(b.dir, "fleet.yaml"), inventory.Template("demo", cliDomain), 0o600))
	_, err := vault.Create(filepath.Join(b.dir, "secrets"), inventory.SecretText(passphrase), vault.Options{Fleet: "demo", WorkFactor: 10})
	must(t, err)
	b.env = map[string]string{"FLEET_PASSPHRASE": passphrase, "FLEET_PACE": "0.01", "NO_COLOR": "1"}
	for _, line := range b.lab.Env() {
		name, value, _ := strings.Cut(line, "=")
		b.env[name] = value
	}
	return b
}

// wrap stands around both shops.
func (b *buyer) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if b.answered.CompareAndSwap(true, false) {
			_ = http.NewResponseController(w).Flush() // the client may be gone
			b.at.die()
		}
	})
}

func (b *buyer) watch(o faults.Occasion, kinds []faults.Kind) (faults.Fault, bool) {
	if o.Layer != faults.API {
		return faults.Fault{}, false
	}
	if slices.Contains(kinds, faults.ReplyLost) && b.at.at("call "+o.Call[0], killedAnswered) != "" {
		b.answered.Store(true)
		return faults.Fault{}, false
	}
	return b.at.watch(o, kinds)
}

// order runs one command: in this process, or as one of its own that can be killed.
func (b *buyer) order(t *testing.T, own bool, args ...string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	b.at.kill = cancel
	job := orderJob{Args: append([]string{"-C", b.dir, "order"}, args...), Env: b.env, Types: wishes[b.name][0]}
	b.lab.Faults.SetWatch(b.watch)
	defer b.lab.Faults.SetWatch(nil)
	if own {
		return b.killable(t, ctx, job)
	}
	var out bytes.Buffer
	return job.run(ctx, &out), out.String()
}

func (b *buyer) killable(t *testing.T, ctx context.Context, job orderJob) (code int, said string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	text, err := json.Marshal(job)
	must(t, err)
	cmd := exec.CommandContext(ctx, self, "-test.run", "^TestOrderOperator$") // a context that ends kills with -9
	cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// orderJob is what a person types.
type orderJob struct {
	Args  []string
	Env   map[string]string
	Types string // when asked
}

func (j orderJob) run(ctx context.Context, out *bytes.Buffer) int {
	return cli.Run(ctx, j.Args, cli.Env{Stdin: strings.NewReader(j.Types + "\n"), Stdout: out, Stderr: out, Terminal: true, Width: 100,
		Getenv: func(name string) string { return j.Env[name] }})
}

const orderEnv = "POPFLEET_E2E_ORDER"

// TestOrderOperator is not a test: it is the process that TestOrderMatrix kills.
func TestOrderOperator(t *testing.T) {
	text := os.Getenv(orderEnv)
	if text == "" {
		t.Skip("only another test's other half")
	}
	var j orderJob
	must(t, json.Unmarshal([]byte(text), &j))
	var out bytes.Buffer
	code := j.run(t.Context(), &out)
	fmt.Print(out.String())
	os.Exit(code)
}

// begun is the order that is kept on disk, "" for none.
func (b *buyer) begun(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.dir, ".fleet", "orders", "o-*.json"))
	must(t, err)
	if len(files) > 1 {
		t.Fatalf("several orders were begun: %v", files)
	}
	if len(files) == 0 {
		return ""
	}
	return strings.TrimSuffix(filepath.Base(files[0]), ".json")
}

func (b *buyer) booked() int {
	if b.name == provider.OVH {
		return b.lab.OVH.Orders()
	}
	return b.lab.Robot.Orders()
}

// buy is one case: an order under a fault, then whatever a person does next: go on with the order that was begun, or,
// where none was, order.
func (b *buyer) buy(t *testing.T) ending {
	anew := append([]string{b.name}, append(slices.Clone(wishes[b.name]), "--allow-orders")...)
	dies := strings.HasPrefix(b.at.target.kind, "killed")
	code, said := b.order(t, dies, anew...)
	story := said
	first := code
	b.at = &probe{}
	for range 2 {
		if code == 0 {
			break
		}
		b.lab.Robot.Unblock() // ten minutes later
		args := anew
		if id := b.begun(t); id != "" {
			args = []string{id}
		} else if n := b.booked(); n != 0 {
			t.Errorf("%d orders, and none was written down before it was sent", n)
		}
		code, said = b.order(t, false, args...)
		story += fmt.Sprintf("— exit %d, again %v —\n", first, args) + said
	}
	if n := b.booked(); n > 1 {
		t.Errorf("%d orders were placed", n)
	}
	switch {
	case code == 0 && b.booked() != 1:
		t.Errorf("delivered, with %d orders", b.booked())
	case code != 0 && !strings.Contains(said, "error:"):
		t.Errorf("exit %d without a reason", code)
	}
	if t.Failed() {
		t.Log(story)
	}
	switch {
	case code != 0:
		t.Logf("stopped: %s", story)
		return stopped
	case first == 0:
		return converged
	}
	return convergedAgain
}

// convergedAgain: the run stopped or was killed, and the next one delivered.
const convergedAgain ending = "delivered by the next run"

// TestOrderMatrix: every call of an order goes wrong in every way, and the process is killed before it, after it and with
// its answer on the way: nothing is ever ordered twice.
func TestOrderMatrix(t *testing.T) {
	var cases []matrixCase
	for _, name := range []string{provider.HetznerRobot, provider.OVH} {
		clean := &probe{}
		b := newBuyer(t, name, clean)
		began := time.Now()
		if e := b.buy(t); e != converged {
			t.Fatalf("a clean order: %s", e)
		}
		t.Logf("%s: a clean order takes %s", name, time.Since(began).Round(time.Millisecond))
		for _, at := range slices.SortedFunc(maps.Keys(clean.seen), func(a, b occasion) int { return cmp.Or(cmp.Compare(a.where, b.where), cmp.Compare(a.kind, b.kind)) }) {
			for nth := 1; nth <= min(clean.seen[at], repeats); nth++ {
				cases = append(cases, matrixCase{fmt.Sprintf("order/%s/%s at %s, %d", name, at.kind, at.where, nth), name, class(at.kind),
					func(t *testing.T) ending { return newBuyer(t, name, &probe{target: at, nth: nth}).buy(t) }})
			}
		}
	}
	runMatrix(t, "orders", 16, cases)
}
