package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// life is one node's way from nothing to serving, at one provider.
type life struct {
	*stand
	dir   string
	node  lifecycle.Node
	agent remote.Agent
	liar  *liar
	told  strings.Builder // what a person saw; written by one run at a time
}

func newLife(t *testing.T, name string) *life {
	t.Helper()
	l := &life{stand: &stand{name: name}, dir: filepath.Join(t.TempDir(), "secrets"), agent: tempAgent(t), liar: &liar{}}
	v, err := vault.Create(l.dir, inventory.SecretText(passphrase), vault.Options{Fleet: "demo", WorkFactor: 10})
	must(t, err)
	key, err := v.FleetKey()
	must(t, err)
	l.key.Public = key.Public
	l.start(t, inprocess.Options{Timing: quick, Wrap: l.liar.wrap, WrapRobot: l.liar.wrap, WrapOVH: l.liar.wrap})
	l.node = lifecycle.Node{Name: "fsn-1", PoP: "fsn", Machine: inventory.Machine{Provider: name, Server: l.wanted.Server}}
	if l.wanted.Server == "" {
		l.node.Machine.ServerType, l.node.Machine.Location = "cx23", "fsn1"
	} else {
		l.until(t, l.machine(t, l.wanted.Server), "factory")
	}
	return l
}

// run is one process: a driver, a vault and a journal of its own, and the probe between it and the world.
func (l *life) run(t *testing.T, p *probe) lifecycle.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // longer than any operation's deadlines together
	defer cancel()
	p.kill = cancel
	l.lab.Faults.SetWatch(p.watch)
	defer l.lab.Faults.SetWatch(nil)
	l.liar.watch(p)
	defer l.liar.watch(nil)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	v, err := vault.Open(l.dir, inventory.SecretText(passphrase))
	must(t, err)
	driver := l.open(t, rented{calls: time.Second, robot: 0.02, others: quickPace, transport: probedTransport{p, transport}})
	d, err := dial.New(l.lab.SocksURL)
	must(t, err)
	image := strings.Repeat("image ", 2000)
	blobs := texts{digest(image): image}
	results, err := lifecycle.Up(ctx, lifecycle.Deps{
		Fleet: "demo", Operator: "tester", Run: "run", Keys: v, Memory: probedMemory{p, v}, Journal: &probedJournal{probe: p},
		Provider: func(string) (provider.Provider, error) { return driver, nil },
		Compiler: &compiler{content: "first"}, Agent: l.agent, Dial: probedDialer{p, d}, Pace: quickPace, Poll: 5 * time.Millisecond,
		Image: func(context.Context) (lifecycle.Image, error) {
			return lifecycle.Image{Blob: spec.Blob{SHA256: digest(image), SizeBytes: int64(len(image))}, Blobs: blobs}, nil
		},
		Rent:     func(ctx context.Context, _ string) error { _, err := driver.Ensure(ctx, l.wanted); return err },
		Progress: l.hear,
	}, []lifecycle.Node{l.node})
	if ctx.Err() != nil && !p.isDead() {
		t.Errorf("it did not stop inside its deadlines\n%s", l.told.String())
	}
	if err != nil {
		return lifecycle.Result{Node: l.node.Name, Err: err}
	}
	return results[0]
}

func (l *life) hear(e lifecycle.Event) {
	if e.Kind != lifecycle.EventProgress {
		fmt.Fprintf(&l.told, "%s %s %s %s %s\n", e.Time.Format("05.000"), e.Kind, e.Stage, e.Op, e.Text)
	}
}

// suffer is one case: the fault strikes, the run converges or stops with a reason, a later run converges, and nothing
// that must never happen did.
func suffer(t *testing.T, name string, at occasion, nth int) ending {
	l := newLife(t, name)
	p := &probe{target: at, nth: nth}
	l.told.WriteString("— struck —\n")
	r := l.run(t, p)
	end := l.judge(t, p, r)
	clean := &probe{}
	if r.Err != nil || p.isDead() {
		l.told.WriteString("— again —\n")
		l.timePasses()
		if r = l.run(t, clean); r.Err != nil || r.Stage != lifecycle.Serving {
			t.Errorf("run again it is %s: %v", r.Stage, r.Err)
		}
	}
	l.unharmed(t, p, clean)
	if t.Failed() {
		t.Logf("occasion %d of %s at %s\n%s", nth, at.kind, at.where, l.told.String())
	}
	return end
}

// timePasses ends what a provider ends by itself: Robot lets a blocked address in again after ten minutes, OVH's staff
// cancels a task that hangs.
func (l *life) timePasses() {
	if l.lab.Robot != nil {
		l.lab.Robot.Unblock()
	}
	if l.lab.OVH != nil {
		l.lab.OVH.Unstick()
	}
}

func (l *life) judge(t *testing.T, p *probe, r lifecycle.Result) ending {
	t.Helper()
	var told *lifecycle.Error
	var refused *provider.Error
	switch {
	case p.isDead():
		return stopped
	case r.Err == nil && r.Stage == lifecycle.Serving && !p.struck:
		return missed
	case r.Err == nil && r.Stage == lifecycle.Serving:
		return converged
	case errors.As(r.Err, &told) && (told.Next == "" || told.Err == nil):
		t.Errorf("it stopped without a word of how to go on: %v", r.Err)
	case told == nil && !errors.As(r.Err, &refused): // the provider could not be asked for the fleet's servers
		t.Errorf("it stopped without a reason: %s %v", r.Stage, r.Err)
	}
	fmt.Fprintf(&l.told, "stopped: %v\n", r.Err)
	return stopped
}

// unharmed demands what holds whatever happened: one server, no disk wiped twice, no secret where it must not be, nothing
// armed at the provider.
func (l *life) unharmed(t *testing.T, runs ...*probe) {
	t.Helper()
	servers := l.lab.Machines.Machines()
	if want := map[bool]int{true: 1, false: 2}[l.wanted.Server == ""]; len(servers) != want {
		t.Errorf("%d servers were created, wanted %d", len(servers), want)
	}
	m := l.machine(t, cmp.Or(l.wanted.Server, "demo-fsn-1"))
	wiped := 0
	for serial, n := range m.Ledger().Wipes() {
		if wiped += n; n > 1 {
			t.Errorf("disk %s was wiped %d times", serial, n)
		}
	}
	if wiped == 0 {
		t.Error("no disk was ever installed on")
	}
	for _, other := range servers {
		if other != m && len(other.Ledger().Logins())+len(other.Ledger().Wipes()) > 0 {
			t.Errorf("%s is nobody's business and was entered", other.Label())
		}
	}
	l.secretsStayed(t, m, runs)
	l.leftAsItShould(t, m)
}

func (l *life) secretsStayed(t *testing.T, m *scripted.Machine, runs []*probe) {
	t.Helper()
	v, err := vault.Open(l.dir, inventory.SecretText(passphrase))
	must(t, err)
	k, err := v.Node(l.node.Name)
	must(t, err)
	lasting := map[string][]byte{"machine key": k.MachineKey.Reveal(), "recovery key": k.RecoveryKey.Reveal(),
		"initramfs host key": k.InitramfsHostKey.Private.Reveal(), "system host key": k.SystemHostKey.Private.Reveal()}
	for _, name := range slices.Sorted(maps.Keys(lasting)) {
		if m.Ledger().Saw("rescue", lasting[name]) || m.Ledger().Saw("factory", lasting[name]) {
			t.Errorf("the %s crossed a link that is not pinned", name)
		}
	}
	lasting["install key"] = k.InstallKey.Reveal()
	if m.Ledger().Saw("factory", lasting["install key"]) {
		t.Error("the install key was told to somebody's system")
	}
	for name, secret := range lasting {
		if scripted.Contains(l.lab.Impostor.Heard(), secret) {
			t.Errorf("the impostor heard the %s", name)
		}
		for _, p := range runs {
			if scripted.Contains(p.said.Bytes(), secret) || bytes.Contains([]byte(l.told.String()), secret) {
				t.Errorf("the %s was told to the provider or to the screen", name)
			}
		}
	}
	if l.name == provider.HetznerRobot && l.lab.Impostor.Logins() > 0 {
		t.Error("the impostor was logged in to, although Robot tells the keys of its rescue system")
	}
}

// leftAsItShould looks at the provider's own state: nothing is armed that would boot rescue, and what was changed for the
// installation is as it was.
func (l *life) leftAsItShould(t *testing.T, m *scripted.Machine) {
	t.Helper()
	l.driver = l.open(t, rented{calls: time.Second, robot: 0.02, others: quickPace})
	if armed := l.armed(t, l.serverID(t)); len(armed) > 0 {
		t.Errorf("left armed: %v", armed)
	}
	if m.Stage() != "system" {
		t.Errorf("the machine is %s", m.Stage())
	}
}

func (l *life) serverID(t *testing.T) string {
	t.Helper()
	if l.wanted.Server != "" {
		return l.wanted.Server
	}
	servers := l.lab.Cloud.Servers()
	if len(servers) != 1 {
		t.Fatalf("%d servers", len(servers))
	}
	return servers[0].ID
}

// occasionsOf is everything that one clean life comes by.
func occasionsOf(t *testing.T, name string) map[occasion]int {
	t.Helper()
	l := newLife(t, name)
	p := &probe{}
	if r := l.run(t, p); r.Err != nil || r.Stage != lifecycle.Serving {
		t.Fatalf("a clean run is %s: %v\n%s", r.Stage, r.Err, l.told.String())
	}
	l.unharmed(t, p)
	return p.seen
}

// repeats bounds how many of an occasion's repetitions are struck: the first ones, and the last.
const repeats = 2

// notHere are faults that a node's way up has no part in.
var notHere = map[string]string{
	string(faults.NoIPv4): "what it is rented with is not what goes wrong later",
}

// TestLifecycleMatrix: everything that a node comes by on its way from nothing to serving goes wrong in every way that it
// can, one at a time, at every provider.
func TestLifecycleMatrix(t *testing.T) {
	var cases []matrixCase
	for _, name := range providers {
		seen := occasionsOf(t, name)
		for _, at := range slices.SortedFunc(maps.Keys(seen), func(a, b occasion) int { return cmp.Or(cmp.Compare(a.where, b.where), cmp.Compare(a.kind, b.kind)) }) {
			if notHere[at.kind] != "" {
				continue
			}
			for nth := 1; nth <= seen[at]; nth++ {
				if nth > repeats && nth != seen[at] {
					continue
				}
				cases = append(cases, matrixCase{fmt.Sprintf("%s/%s at %s, %d", name, at.kind, at.where, nth), name, class(at.kind),
					func(t *testing.T) ending { return suffer(t, name, at, nth) }})
			}
		}
	}
	runMatrix(t, "lives", 16, cases)
}
