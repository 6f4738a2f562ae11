package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"popfleet/fleet/cli"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// The bars of what fleets of this kind were measured to need (facts: fleet-tools §4).
const bars = "bars: a phase cold ≤ 11 RTT, warm ≤ 2; 100 nodes at 200 ms, nothing to change: ≤ 3.5 s; ≤ 3 ms operator CPU a node"

// BenchmarkUp brings nodes from nothing to serving and then runs up again with nothing to change. The operator is a new
// process each time, as the command is, so its CPU is its own; machines, provider and proxy share the other process and the same cores,
// so wall time is an upper bound.
func BenchmarkUp(b *testing.B) {
	for _, rtt := range []time.Duration{0, 200 * time.Millisecond} {
		for _, nodes := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("rtt=%dms/nodes=%d", rtt.Milliseconds(), nodes), func(b *testing.B) {
				for range b.N {
					benchUp(b, rtt, nodes)
				}
			})
		}
	}
}

func benchUp(b *testing.B, rtt time.Duration, nodes int) {
	timing := quick
	timing.RTT = rtt
	w := newWorld(b, inprocess.Options{Timing: timing}, nodes)
	j := job{URL: w.lab.URL, Token: w.lab.Token, Socks: w.lab.SocksURL, Vault: w.vaultDir, Nodes: nodes, Agent: w.agent}
	up, again := operate(b, j), operate(b, j)
	perNode := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(nodes) }
	b.ReportMetric(up.Wall.Seconds(), "up-s")
	b.ReportMetric(perNode(up.CPU), "up-cpu-ms/node")
	b.ReportMetric(again.Wall.Seconds(), "noop-s")
	b.ReportMetric(perNode(again.CPU), "noop-cpu-ms/node")
	if rtt > 0 {
		b.ReportMetric(float64(again.Wall)/float64(rtt), "noop-rtt")
	}
	b.Logf("%s\n%s", bars, table(up.Phases, rtt, nodes))
}

func table(phases map[lifecycle.Op]time.Duration, rtt time.Duration, nodes int) string {
	var b strings.Builder
	for _, op := range []lifecycle.Op{lifecycle.OpRent, lifecycle.OpEnterRescue, lifecycle.OpInstall, lifecycle.OpBootDisk,
		lifecycle.OpUnlock, lifecycle.OpWaitSystem, lifecycle.OpSeal, lifecycle.OpConverge} {
		mean := phases[op] / time.Duration(nodes)
		fmt.Fprintf(&b, "  %-13s mean %8s", op, mean.Round(time.Millisecond))
		if rtt > 0 {
			fmt.Fprintf(&b, " = %5.1f RTT", float64(mean)/float64(rtt))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// job is what the operator's process is told, in its environment.
type job struct {
	URL, Token, Socks, Vault string
	Nodes                    int
	Agent                    remote.Agent
}

type report struct {
	Wall, CPU time.Duration
	Phases    map[lifecycle.Op]time.Duration
}

const (
	jobEnv       = "POPFLEET_E2E_OPERATOR"
	reportMarker = "operator report: "
)

// operate runs TestOperatorProcess in a process of its own and reads its report.
func operate(b *testing.B, j job) report {
	b.Helper()
	spec, err := json.Marshal(j)
	must(b, err)
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestOperatorProcess$", "-test.v")
	cmd.Env = append(os.Environ(), jobEnv+"="+string(spec))
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("operator process: %v\n%s", err, out)
	}
	_, rest, ok := bytes.Cut(out, []byte(reportMarker))
	if !ok {
		b.Fatalf("the operator process did not report:\n%s", out)
	}
	var r report
	must(b, json.NewDecoder(bytes.NewReader(rest)).Decode(&r))
	return r
}

// TestOperatorProcess is not a test: it is the operator of BenchmarkUp, and does nothing unless it is told a job.
func TestOperatorProcess(t *testing.T) {
	text := os.Getenv(jobEnv)
	if text == "" {
		t.Skip("only a benchmark's other half")
	}
	cli.Tune() // as the fleet command does
	var j job
	must(t, json.Unmarshal([]byte(text), &j))
	w := &world{lab: &inprocess.Lab{URL: j.URL, Token: j.Token, SocksURL: j.Socks}, agent: j.Agent}
	w.nodes = nodesNamed(j.Nodes)
	var err error
	w.vault, err = vault.Open(j.Vault, inventory.SecretText(passphrase))
	must(t, err)
	w.connectDriver(t, 1)
	p := &phaseClock{spent: map[lifecycle.Op]time.Duration{}, began: map[string]time.Time{}}
	start, cpu := time.Now(), processCPU()
	w.benchOnce(t, p.hear)
	line, err := json.Marshal(report{Wall: time.Since(start), CPU: processCPU() - cpu, Phases: p.spent})
	must(t, err)
	fmt.Printf("%s%s\n", reportMarker, line)
}

func (w *world) benchOnce(t testing.TB, hear func(lifecycle.Event)) {
	w.deps = w.newDeps(t)
	w.deps.Pace, w.deps.Poll, w.deps.Progress = 1, 20*time.Millisecond, hear
	results, err := lifecycle.Up(t.Context(), w.deps, w.nodes)
	must(t, err)
	w.serving(t, results)
}

func processCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// phaseClock adds up how long each operation took over all nodes.
type phaseClock struct {
	mu    sync.Mutex
	began map[string]time.Time           // guarded by mu
	spent map[lifecycle.Op]time.Duration // guarded by mu
}

func (p *phaseClock) hear(e lifecycle.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case lifecycle.EventBegin:
		p.began[e.Node] = e.Time
	case lifecycle.EventEnd:
		p.spent[e.Op] += e.Time.Sub(p.began[e.Node])
	}
}
