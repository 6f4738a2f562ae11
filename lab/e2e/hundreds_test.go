package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/fleet/cli"
	"popfleet/internal/dial"
	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/ovh"
	"popfleet/lab/scripted"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/hetznerrobot"
	"popfleet/provision/lifecycle"
	ovhdriver "popfleet/provision/ovh"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// many is a lab of three providers and a fleet of twelve PoPs in it.
type many struct {
	lab   *inprocess.Lab
	calls map[string]*counted
	job   manyJob
}

// manyJob is what the operator is told; it travels to a process of his own.
type manyJob struct {
	Cloud, Robot, OVH, Socks, Vault string
	Agent                           remote.Agent
	Nodes                           []lifecycle.Node
	Pace                            pace.Pace
	Poll                            time.Duration
	Hour                            time.Duration // what the providers' limits count by
	ImageBytes                      int
}

// counted counts an API's calls.
type counted struct {
	mu    sync.Mutex
	calls map[string]int // guarded by mu
}

func (c *counted) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.calls[r.Method+" "+generic(r.URL.Path)]++
		c.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// generic takes what names one machine out of a path.
func generic(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.ContainsAny(p, "0123456789") && p != "v1" && p != "1.0" {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

func (c *counted) total() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		n += k
	}
	return n
}

func (c *counted) table() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, call := range slices.Sorted(maps.Keys(c.calls)) {
		fmt.Fprintf(&b, "    %6d %s\n", c.calls[call], call)
	}
	return b.String()
}

// providerOf gives PoPs 1–7 to Hetzner Cloud, 8 and 9 to Robot, where 50 restarts an hour are all there is, and 10–12 to
// OVH.
func providerOf(pop int) string {
	switch {
	case pop < 7:
		return provider.HetznerCloud
	case pop < 9:
		return provider.HetznerRobot
	}
	return provider.OVH
}

const manyPoPs = 12

// newMany makes a fleet of n nodes whose machines and providers take minute for what takes a minute in the world: about
// three of them from nothing to serving.
func newMany(t testing.TB, n int, minute, rtt time.Duration) *many {
	t.Helper()
	of := func(seconds float64) time.Duration { return time.Duration(seconds / 60 * float64(minute)) }
	m := &many{calls: map[string]*counted{}}
	for _, p := range []string{provider.HetznerCloud, provider.HetznerRobot, provider.OVH} {
		m.calls[p] = &counted{calls: map[string]int{}}
	}
	per := map[string]int{}
	for i := range n {
		per[providerOf(i%manyPoPs)]++
	}
	m.lab = inprocess.Start(t, inprocess.Options{
		Timing: scripted.Timing{RTT: rtt, BootRescue: of(40), BootDisk: of(15), BootSystem: of(20), Step: of(3)},
		ActionTime: func(command string) time.Duration {
			return map[string]time.Duration{"create_server": of(20), "enable_rescue": of(10)}[command] + of(5)
		},
		Robot: per[provider.HetznerRobot], OVH: per[provider.OVH],
		RobotDelay: func(string) time.Duration { return of(5) },
		OVHDelay: func(what string) time.Duration {
			return map[string]time.Duration{ovh.TaskFresh: of(1), ovh.Monitor: of(3600)}[what] + of(5)
		},
		Wrap: m.calls[provider.HetznerCloud].wrap, WrapRobot: m.calls[provider.HetznerRobot].wrap, WrapOVH: m.calls[provider.OVH].wrap,
	})
	m.job = manyJob{Cloud: m.lab.URL, Robot: m.lab.RobotURL, OVH: m.lab.OVHURL, Socks: m.lab.SocksURL,
		Vault: filepath.Join(t.TempDir(), "secrets"), Agent: tempAgent(t), ImageBytes: 1 << 20,
		Pace: max(0.05, pace.Pace(minute.Seconds()/60)), Poll: max(5*time.Millisecond, of(2)), Hour: of(3600)}
	_, err := vault.Create(m.job.Vault, inventory.SecretText(passphrase), vault.Options{Fleet: "demo", WorkFactor: 10})
	must(t, err)
	m.name(n)
	return m
}

// name spreads the nodes over the PoPs and the dedicated machines over the nodes.
func (m *many) name(n int) {
	robots, ovhs := m.lab.Robot.Servers(), m.lab.OVH.Servers()
	for i := range n {
		pop := i % manyPoPs
		node := lifecycle.Node{PoP: fmt.Sprintf("p%02d", pop+1), Machine: inventory.Machine{Provider: providerOf(pop)}}
		node.Name = fmt.Sprintf("%s-%d", node.PoP, i/manyPoPs+1)
		switch node.Machine.Provider {
		case provider.HetznerRobot:
			node.Machine.Server, robots = robots[0].ID, robots[1:]
		case provider.OVH:
			node.Machine.Server, ovhs = ovhs[0].ID, ovhs[1:]
		}
		m.job.Nodes = append(m.job.Nodes, node)
	}
}

// named maps a provider's nodes to their machines.
func (j manyJob) named(p string) map[string]string {
	out := map[string]string{}
	for _, n := range j.Nodes {
		if n.Machine.Provider == p {
			out[n.Name] = n.Machine.Server
		}
	}
	return out
}

// operator makes what a run needs, as the command does.
func (j manyJob) operator(t testing.TB) (lifecycle.Deps, *meter) {
	t.Helper()
	v, err := vault.Open(j.Vault, inventory.SecretText(passphrase))
	must(t, err)
	key, err := v.FleetKey()
	must(t, err)
	cloud, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText("lab-token"), Endpoint: j.Cloud, Pace: j.Pace})
	must(t, err)
	robot, err := hetznerrobot.New(hetznerrobot.Options{User: inventory.SecretText(inprocess.RobotUser), Password: inventory.SecretText(inprocess.RobotPassword),
		Endpoint: j.Robot, Servers: j.named(provider.HetznerRobot), Keys: []string{key.Public}, Pace: j.Pace, Poll: j.Hour / 720, Hour: j.Hour})
	must(t, err)
	bare, err := ovhdriver.New(ovhdriver.Options{Endpoint: j.OVH, ApplicationKey: inventory.SecretText(inprocess.OVHApplicationKey),
		ApplicationSecret: inventory.SecretText(inprocess.OVHApplicationSecret), ConsumerKey: inventory.SecretText(inprocess.OVHConsumerKey),
		Servers: j.named(provider.OVH), Pace: j.Pace})
	must(t, err)
	t.Cleanup(func() { cloud.Close(); robot.Close(); bare.Close() })
	drivers := map[string]provider.Provider{provider.HetznerCloud: cloud.Machines(), provider.HetznerRobot: robot, provider.OVH: bare}
	d, err := dial.New(j.Socks)
	must(t, err)
	m := &meter{Dialer: d}
	image := noise(1, j.ImageBytes)
	blobs := texts{digest(image): image}
	return lifecycle.Deps{
		Fleet: "demo", Operator: "tester", Run: "many", Keys: v, Memory: v, Journal: &memoryJournal{}, Agent: j.Agent, Dial: m, Pace: j.Pace, Poll: j.Poll,
		Provider: func(name string) (provider.Provider, error) { return drivers[name], nil },
		Compiler: &heavyCompiler{binaries: []string{noise(2, 200<<10), noise(3, 200<<10)}},
		Image: func(context.Context) (lifecycle.Image, error) {
			return lifecycle.Image{Blob: blobOf(image), Blobs: blobs}, nil
		},
		Rent: func(ctx context.Context, node string) error {
			_, err := drivers[provider.HetznerCloud].Ensure(ctx, provider.Wanted{Fleet: "demo", Node: node, Image: "debian-12",
				Places: []provider.Place{{Type: "cx23", Location: "fsn1"}}})
			return err
		},
	}, m
}

// manyReport is what came of a run.
type manyReport struct {
	Wall, Slowest time.Duration // Slowest of those that serve
	SlowestNode   string
	Sent          int64
	Took          map[string]time.Duration // of those that serve
	Failed        map[string]string
}

func (j manyJob) run(t testing.TB) manyReport {
	t.Helper()
	deps, m := j.operator(t)
	start := time.Now()
	results, err := lifecycle.Up(t.Context(), deps, j.Nodes)
	must(t, err)
	r := manyReport{Wall: time.Since(start), Sent: m.sent.Load(), Failed: map[string]string{}, Took: map[string]time.Duration{}}
	for _, one := range results {
		switch {
		case one.Err != nil || one.Stage != lifecycle.Serving:
			r.Failed[one.Node] = fmt.Sprintf("%s: %v", one.Stage, one.Err)
		default:
			if r.Took[one.Node] = one.Took; one.Took > r.Slowest {
				r.Slowest, r.SlowestNode = one.Took, one.Node
			}
		}
	}
	return r
}

// judge demands what no run may break, however many nodes: one wipe a disk, one copy a PoP.
func (m *many) judge(t testing.TB, r manyReport, dead ...string) {
	t.Helper()
	for node, why := range r.Failed {
		if !slices.Contains(dead, node) {
			t.Errorf("%s is %s", node, why)
		}
	}
	direct, wiped := 0, 0
	for _, machine := range m.lab.Machines.Machines() {
		direct += machine.Ledger().Direct()
		for serial, n := range machine.Ledger().Wipes() {
			if wiped++; n != 1 {
				t.Errorf("disk %s was wiped %d times", serial, n)
			}
		}
	}
	t.Logf("%d nodes in %d PoPs: %s, the slowest node (%s) %s: ratio %.3f; %.1f MB over the uplink, %d blobs by the operator for %d disks",
		len(m.job.Nodes), manyPoPs, r.Wall.Round(time.Millisecond), r.SlowestNode, r.Slowest.Round(time.Millisecond),
		r.Wall.Seconds()/r.Slowest.Seconds(), float64(r.Sent)/1e6, direct, wiped)
	per := map[string]int{}
	for _, n := range m.job.Nodes {
		per[n.Machine.Provider]++
	}
	for name, c := range m.calls {
		t.Logf("%s: %d calls for %d nodes, %.1f a node\n%s", name, c.total(), per[name], float64(c.total())/float64(per[name]), c.table())
	}
}

// TestManyPoPs: three providers side by side, with a machine that never comes up. It fails with a reason; nobody waits
// for it.
func TestManyPoPs(t *testing.T) {
	m := newMany(t, 3*manyPoPs, 250*time.Millisecond, 10*time.Millisecond)
	m.lab.Faults.MustAdd(faults.Fault{Kind: faults.BootHangs, Machine: "demo-p01-1"})
	r := m.job.run(t)
	m.judge(t, r, "p01-1")
	if why := r.Failed["p01-1"]; why == "" {
		t.Error("a dead node serves")
	} else {
		t.Logf("the dead node: %s", why)
	}
	// Its neighbours are as quick as the same machines in PoPs where nobody is dead.
	here, there := r.mean("p01-2", "p01-3"), r.mean("p02-2", "p02-3", "p03-2", "p03-3", "p04-2", "p04-3")
	t.Logf("neighbours of the dead node took %s, others %s", here.Round(time.Millisecond), there.Round(time.Millisecond))
	if here > there*3/2 {
		t.Errorf("neighbours of the dead node took %s, others %s", here, there)
	}
}

func (r manyReport) mean(nodes ...string) (sum time.Duration) {
	for _, n := range nodes {
		sum += r.Took[n]
	}
	return sum / time.Duration(len(nodes))
}

const manyEnv = "POPFLEET_E2E_MANY"

// TestManyOperator is not a test: it is the operator of BenchmarkHundreds.
func TestManyOperator(t *testing.T) {
	if os.Getenv(manyEnv) == "" {
		t.Skip("only a benchmark's other half")
	}
	cli.Tune() // as the fleet command does
	var j manyJob
	must(t, json.NewDecoder(os.Stdin).Decode(&j))
	line, err := json.Marshal(j.run(t))
	must(t, err)
	fmt.Printf("%s%s\n", reportMarker, line)
}
