package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
)

// The whole life of a fleet, each step through the binary as an operator types it.
func TestCLILife(t *testing.T) {
	t.Parallel()
	w := bareCLIWorld(t, inprocess.Options{})
	w.want(t, 0, "init", "demo", cliDomain)
	w.serveEdges(t)
	again := w.want(t, 0, "init", "demo", cliDomain)
	if !strings.Contains(again.stderr, "secrets/ is there already") {
		t.Errorf("a second init: %s", again)
	}

	planned := w.want(t, 2, "plan")
	golden(t, "cli/plan-new", w.scrub(planned.stdout))
	up := w.want(t, 0, "up", "--yes")
	if !strings.HasPrefix(up.stdout, planned.stdout) {
		t.Errorf("up printed another plan than plan did:\n%s\n%s", planned.stdout, up.stdout)
	}
	w.exactlyOnce(t, 2)
	t.Logf("first up: %.1f s", up.took.Seconds())

	before := w.ledgers()
	noop := w.want(t, 0, "up", "--yes")
	if noop.stdout != "no changes: 2 node(s) as the fleet file says\n" || w.ledgers() != before {
		t.Errorf("second up: %s\nbefore\n%safter\n%s", noop, before, w.ledgers())
	}
	t.Logf("up again: exit 0, no changes, nothing touched, %.1f s", noop.took.Seconds())
	w.want(t, 0, "plan")

	w.changedTTL(t)
	w.lockedNode(t)
	w.takenDown(t)
}

// changedTTL: a changed line of the fleet file is named by plan, done by up, and nothing besides.
func (w *cliWorld) changedTTL(t *testing.T) {
	t.Helper()
	w.edit(t, "ttl: 30s", "ttl: 60s")
	planned := w.want(t, 2, "plan")
	golden(t, "cli/plan-ttl", planned.stdout)
	w.want(t, 2, "plan") // looking changed nothing
	up := w.want(t, 0, "up", "--yes", "--json")
	var did []string
	for _, e := range up.events(t) {
		if e.Kind == "node" && e.Data["kind"] == "begin" {
			did = append(did, fmt.Sprint(e.Node, " ", e.Data["op"]))
		}
	}
	said := regexp.MustCompile(`(?m)^  \d+\. ([a-z-]+):`).FindAllStringSubmatch(planned.stdout, -1)
	for _, node := range []string{"fsn-1", "fsn-2"} {
		if !strings.Contains(strings.Join(did, "\n"), node+" converge") {
			t.Errorf("%s was not converged: %v", node, did)
		}
	}
	// wait-serving is planned, and already true when it is looked at: at most what was printed is begun.
	for _, d := range did {
		if op := strings.Fields(d)[1]; op != "converge" && op != "wait-serving" {
			t.Errorf("up began %q; plan printed %v", d, said)
		}
	}
	w.want(t, 0, "plan")
}

// lockedNode: unlock needs neither controller nor token.
func (w *cliWorld) lockedNode(t *testing.T) {
	t.Helper()
	m := w.lab.Machine(t, "demo-fsn-1")
	must(t, m.Reset(t.Context()))
	w.untilStage(t, m, "locked")
	golden(t, "cli/plan-locked", w.want(t, 2, "plan").stdout)
	token := w.env["HCLOUD_TOKEN"]
	delete(w.env, "HCLOUD_TOKEN")
	defer func() { w.env["HCLOUD_TOKEN"] = token }()
	tried := len(m.Ledger().Unlocks())
	w.want(t, 0, "unlock", "fsn-1")
	if n := len(m.Ledger().Unlocks()) - tried; n != 1 || m.Stage() != "system" {
		t.Errorf("%d keys were sent, the machine is %s", n, m.Stage())
	}
}

func (w *cliWorld) takenDown(t *testing.T) {
	t.Helper()
	o := w.want(t, 1, "down", "demo") // no terminal, no --yes
	if !strings.Contains(o.stderr, "nothing was done") {
		t.Errorf("down without --yes: %s", o)
	}
	w.want(t, 0, "down", "demo", "--yes")
	for _, m := range w.lab.Machines.Machines() {
		if got, want := fmt.Sprint(m.Ledger().KeysWiped()), fmt.Sprint(m.Serials()); got != want {
			t.Errorf("%s: key slots destroyed on %s, wanted %s", m.Label(), got, want)
		}
		if m.Stage() != "off" {
			t.Errorf("%s is %s after down", m.Label(), m.Stage())
		}
	}
	if _, err := os.Stat(w.path("secrets", "nodes", "fsn-1", "keys.age")); !os.IsNotExist(err) {
		t.Errorf("the keys of fsn-1 are still in the vault: %v", err)
	}
	if out := w.want(t, 2, "plan").stdout; !strings.Contains(out, "create") {
		t.Errorf("plan after down:\n%s", out)
	}
}

// untilStage waits for a machine to come to a stage.
func (w *cliWorld) untilStage(t *testing.T, m *scripted.Machine, stage string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); m.Stage() != stage; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s is %s, not %s", m.Label(), m.Stage(), stage)
		}
	}
}

// One of two nodes fails: the other comes up, the exit code is 3, and the command that goes on is named and goes on.
func TestCLIOneNodeFails(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	fault := w.lab.Faults.MustAdd(faults.Fault{Kind: faults.ResourceUnavailable, Machine: "demo-fsn-1", Call: "create_server"})
	o := w.want(t, 3, "up", "--yes", "--json")
	o.events(t)
	if w.lab.Faults.Hits(fault.ID) == 0 {
		t.Fatal("the fault never struck")
	}
	if !strings.Contains(o.stderr, "go on with: fleet up") || !strings.Contains(o.stderr, "resource_unavailable") {
		t.Errorf("the cause or the command that goes on is missing: %s", o)
	}
	w.lab.Faults.Clear(0)
	w.want(t, 0, "up", "--yes")
	w.exactlyOnce(t, 2)
}

// A second run is refused with the holder's name; a signal ends the first with 130; the same command goes on.
func TestCLILockAndInterrupt(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{Timing: scripted.Timing{BootRescue: 3 * time.Second}})
	first := w.start(t, "up", "--yes", "--json")
	first.until(t, func(e cliEvent) bool { return e.Kind == "node" && e.Data["kind"] == "begin" })
	second := w.want(t, 5, "up", "--yes", "--json")
	second.events(t)
	if !strings.Contains(second.stderr, "locked by ") || !strings.Contains(second.stderr, fmt.Sprintf("pid %d", first.cmd.Process.Pid)) {
		t.Errorf("the refusal does not name the holder: %s", second)
	}
	must(t, first.cmd.Process.Signal(os.Interrupt))
	o := first.wait(t)
	if o.code != 130 {
		t.Fatalf("after SIGINT: %s", o)
	}
	o.events(t)
	w.want(t, 0, "up", "--yes")
	w.exactlyOnce(t, 2)
}

// until reads events up to one that fits; false when there is none.
func (c *call) until(t testing.TB, fits func(cliEvent) bool) bool {
	t.Helper()
	for c.lines.Scan() {
		e, err := parseEvent(c.lines.Bytes())
		must(t, err)
		if fits(e) {
			return true
		}
	}
	return false
}
