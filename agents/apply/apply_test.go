package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popfleet/playbooks/spec"
)

func (m *machine) apply(n *spec.Node) (spec.Applied, error) {
	m.calls, m.sent, m.said = nil, nil, nil
	return Apply(context.Background(), m.options(), n, m)
}

func (m *machine) mustApply(n *spec.Node) spec.Applied {
	m.t.Helper()
	a, err := m.apply(n)
	if err != nil {
		m.t.Fatal(err)
	}
	return a
}

func TestConvergesThenTouchesNothing(t *testing.T) {
	m := newMachine(t)
	first := m.mustApply(m.node())
	want := []string{
		"group fleet", "group fleet-dns", "group fleet-app", "user fleet-dns", "user fleet-app", "dir /etc/fleet/tls",
		"file /etc/fleet/dns.json", "file /etc/fleet/app.json", "file /etc/fleet/tls/dns.key", "file /etc/systemd/resolved.conf.d/fleet.conf",
		"file /etc/sysctl.d/90-fleet.conf", "sysctl net.ipv4.tcp_mtu_probing", "nftables", "release " + shortDigest(m.one()),
		"unit fleet-dns.service", "unit fleet-app.service", "unit fleet-dns.service enable", "unit fleet-app.service enable",
		"systemd reload", "unit fleet-dns.service start", "unit fleet-app.service start",
	}
	if d := cmp.Diff(want, first.Changed); d != "" {
		t.Fatal(d)
	}
	if first.Release != m.one() || first.BootID != "3f6c" {
		t.Fatalf("result %+v", first)
	}
	before := m.snapshot()
	second := m.mustApply(m.node())
	if len(second.Changed) > 0 || len(m.calls) > 0 || len(m.sent) > 0 {
		t.Fatalf("no-op changed %v, ran %v, fetched %v", second.Changed, m.calls, m.sent)
	}
	if d := cmp.Diff(before, m.snapshot()); d != "" {
		t.Fatalf("no-op wrote:\n%s", d)
	}
}

func TestPlanSaysWhatApplyDoesAndWritesNothing(t *testing.T) {
	m := newMachine(t)
	before := m.snapshot()
	planned, err := Plan(context.Background(), m.options(), m.node(), m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, m.snapshot()); d != "" || len(m.calls) > 0 {
		t.Fatalf("plan wrote or ran %v:\n%s", m.calls, d)
	}
	if d := cmp.Diff(planned.Changed, m.mustApply(m.node()).Changed); d != "" {
		t.Fatalf("apply did something else than the plan said:\n%s", d)
	}
	n := m.node()
	n.Files[0].Content = []byte("{\"ttl\":60}\n")
	m.said = nil
	if planned, err = Plan(context.Background(), m.options(), n, m); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"file /etc/fleet/dns.json", "unit fleet-dns.service restart"}, planned.Changed); d != "" {
		t.Fatal(d)
	}
	if !strings.Contains(m.transcript(), "-{\"ttl\":30}\n+{\"ttl\":60}") {
		t.Fatalf("no unified diff in\n%s", m.transcript())
	}
	if d := cmp.Diff(planned.Changed, m.mustApply(n).Changed); d != "" {
		t.Fatal(d)
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	m := newMachine(t)
	m.mustApply(m.node())
	shown := m.transcript()
	n := m.node()
	n.Files[2].Content = []byte("TOP-SECRET-2\n")
	m.mustApply(n)
	if shown += m.transcript(); strings.Contains(shown, "TOP-SECRET") {
		t.Fatalf("a secret was shown:\n%s", shown)
	}
	if !strings.Contains(shown, "content of a secret: sha256 ") {
		t.Fatalf("the change was not shown:\n%s", shown)
	}
	info, err := os.Stat(filepath.Join(m.root, "etc/fleet/tls/dns.key"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

// A run is killed before each program and each blob in turn, in a first converge and in an upgrade; run again it must end
// with every unit running what is on the disk.
func TestKilledAnywhereConverges(t *testing.T) {
	for _, upgrade := range []bool{false, true} {
		for at, killed := 0, true; killed; at++ {
			m := newMachine(t)
			n := m.node()
			if upgrade {
				m.mustApply(n)
				n.Files[0].Content = []byte("{\"ttl\":99}\n")
				n.Nftables = "table inet fleet { chain x {} }\n"
				n.Units[1].Content += "Nice=1\n"
				n.Release = m.bundle(map[string]string{"bin/fleet-dns": "dns 2", "bin/fleet-app": "app 1"})
			}
			killed = m.killAt(n, at)
			m.mustApply(n)
			for _, u := range n.Units {
				if m.boot[u.Name] != m.inputsOf(u.Name) || !m.units[u.Name].enabled {
					t.Fatalf("upgrade %v, killed at %d: %s runs %q, on the disk is %q", upgrade, at, u.Name, m.boot[u.Name], m.inputsOf(u.Name))
				}
			}
			if m.nft != n.Nftables || m.mustApply(n).Changed == nil || len(m.calls) > 0 {
				t.Fatalf("upgrade %v, killed at %d: not converged, ran %v", upgrade, at, m.calls)
			}
		}
	}
}

// killAt ends an apply at its at'th outside act; false when it had fewer.
func (m *machine) killAt(n *spec.Node, at int) bool {
	count := 0
	m.crash = func(string) error {
		if count++; count > at {
			return errors.New("killed")
		}
		return nil
	}
	_, err := m.apply(n)
	m.crash = func(string) error { return nil }
	return err != nil
}

func TestUpgradeRestartsOnlyWhatChanged(t *testing.T) {
	m := newMachine(t)
	m.mustApply(m.node())
	n := m.node()
	n.Release = m.bundle(map[string]string{"bin/fleet-dns": "dns 2", "bin/fleet-app": "app 1"})
	m.mustApply(n)
	if d := cmp.Diff([]string{"systemctl restart fleet-dns.service"}, m.calls); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff([]string{"dns 2"}, m.sent); d != "" {
		t.Fatalf("fetched more than was missing: %s", d)
	}
	previous, err := os.Readlink(filepath.Join(m.root, "opt/fleet/previous"))
	if err != nil || previous != "releases/"+m.one() {
		t.Fatalf("previous is %q, %v", previous, err)
	}
	back := m.mustApply(m.node()) // roll back: everything is still there
	if len(m.sent) > 0 || back.Release != m.one() {
		t.Fatalf("rollback fetched %v, runs %s", m.sent, back.Release)
	}
}

func TestOldReleasesArePruned(t *testing.T) {
	m := newMachine(t)
	for i := range 5 {
		n := m.node()
		n.Release = m.bundle(map[string]string{"bin/fleet-dns": fmt.Sprintf("dns %d", i), "bin/fleet-app": "app"})
		m.mustApply(n)
	}
	releases, err := os.ReadDir(filepath.Join(m.root, "opt/fleet/releases"))
	if err != nil || len(releases) != keepReleases {
		t.Fatalf("%d releases left, %v", len(releases), err)
	}
	blobs, err := os.ReadDir(filepath.Join(m.root, "opt/fleet/blobs"))
	if err != nil || len(blobs) != keepReleases+1 {
		t.Fatalf("%d blobs left, %v", len(blobs), err)
	}
}

func TestDamagedReleaseIsRepaired(t *testing.T) {
	m := newMachine(t)
	m.mustApply(m.node())
	m.write("/opt/fleet/current/bin/fleet-dns", "dns X") // same length, other content
	a := m.mustApply(m.node())
	if !slices.Contains(a.Changed, "release "+shortDigest(m.one())) || m.read("/opt/fleet/current/bin/fleet-dns") != "dns 1" {
		t.Fatalf("changed %v, content %q", a.Changed, m.read("/opt/fleet/current/bin/fleet-dns"))
	}
}

func TestWrongBlobNeverGetsItsName(t *testing.T) {
	m := newMachine(t)
	n := m.node()
	m.blobs[digest("dns 1")] = []byte("dns ?")
	_, err := m.apply(n)
	var e *spec.Error
	if !errors.As(err, &e) || e.Code != spec.CodeDigest {
		t.Fatalf("got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(m.root, "opt/fleet/blobs")); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestRulesetDriftIsSeen(t *testing.T) {
	m := newMachine(t)
	m.mustApply(m.node())
	m.nft = "table inet fleet { # somebody opened a port }"
	a := m.mustApply(m.node())
	if d := cmp.Diff([]string{"nftables"}, a.Changed); d != "" || m.nft != m.node().Nftables {
		t.Fatalf("%s, loaded %q", d, m.nft)
	}
}

func TestStoppedUnitIsStarted(t *testing.T) {
	m := newMachine(t)
	m.mustApply(m.node())
	m.units["fleet-app.service"].active = false
	if d := cmp.Diff([]string{"unit fleet-app.service start"}, m.mustApply(m.node()).Changed); d != "" {
		t.Fatal(d)
	}
}

func TestSystemUnitIsRestartedOnlyWhenItRuns(t *testing.T) {
	m := newMachine(t)
	m.units["systemd-resolved.service"] = &unit{active: true}
	m.mustApply(m.node())
	resolved := slices.Index(m.calls, "systemctl restart systemd-resolved.service")
	if dns := slices.Index(m.calls, "systemctl start fleet-dns.service"); resolved < 0 || resolved > dns {
		t.Fatalf("the resolver must let go of the port first: %v", m.calls)
	}
}

func TestRefusals(t *testing.T) {
	cases := map[string]struct {
		prepare    func(*machine, *spec.Node)
		code, want string
	}{
		"wrong node":     {func(_ *machine, n *spec.Node) { n.Name = "fsn-2" }, spec.CodeWrongNode, `this machine is node "fsn-1", the spec is for "fsn-2"`},
		"no identity":    {func(m *machine, _ *spec.Node) { os.Remove(filepath.Join(m.root, "etc/fleet/node.json")) }, spec.CodeWrongNode, "no identity"},
		"symlink":        {func(m *machine, _ *spec.Node) { os.Symlink("/etc/passwd", filepath.Join(m.root, "etc/fleet/dns.json")) }, "", "a symlink is in the way"},
		"directory":      {func(m *machine, _ *spec.Node) { m.write("/etc/fleet/dns.json/x", "") }, "", "a directory is in the way"},
		"file as dir":    {func(m *machine, _ *spec.Node) { m.write("/etc/fleet/tls", "") }, "", "a file is in the way"},
		"no such sysctl": {func(_ *machine, n *spec.Node) { n.Sysctl[0].Key = "net.none" }, "", "this kernel has no such parameter"},
		"bad ruleset":    {func(_ *machine, n *spec.Node) { n.Nftables = "syntax error" }, "", "nftables: nftables: nft --check"},
		"no package":     {func(_ *machine, n *spec.Node) { n.Packages = []string{"nosuch"} }, "", "Unable to locate package nosuch"},
		"no owner":       {func(_ *machine, n *spec.Node) { n.Files[0].Owner = "nobody2" }, "", "owner nobody2:fleet-dns does not exist"},
		"unhealthy": {func(m *machine, _ *spec.Node) { m.sick["/run/fleet-dns/control.sock"] = "not listening" }, spec.CodeUnhealthy,
			"checks: service dns is not healthy after 1 s: not listening; last lines of its journal:\nlisten :53: address already in use"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			n := m.node()
			c.prepare(m, n)
			_, err := m.apply(n)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			var e *spec.Error
			if c.code != "" && (!errors.As(err, &e) || e.Code != c.code) {
				t.Fatalf("got %#v, want code %s", err, c.code)
			}
			if name == "bad ruleset" && m.read(nftablesPath) != "" {
				t.Fatal("a bad ruleset reached the file the boot loads")
			}
		})
	}
}

func TestSecondApplyAtOnceIsRefused(t *testing.T) {
	m := newMachine(t)
	var inner error
	m.crash = func(string) error {
		m.crash = func(string) error { return nil }
		_, inner = Apply(context.Background(), m.options(), m.node(), newMachine(t))
		return nil
	}
	m.mustApply(m.node())
	if !IsLocked(inner) {
		t.Fatalf("got %v", inner)
	}
}

func TestHandlersDecodeStrictly(t *testing.T) {
	m := newMachine(t)
	h := Handlers(m.options())
	var e *spec.Error
	if _, err := h[spec.OpApply](context.Background(), json.RawMessage(`{"version":1,"name":"fsn-1","shell":"rm"}`), m); !errors.As(err, &e) || e.Code != spec.CodeBadSpec {
		t.Fatalf("got %v", err)
	}
	got, err := h[spec.OpPlan](context.Background(), json.RawMessage(`{"version":1,"name":"fsn-1"}`), m)
	if a, ok := got.(spec.Applied); err != nil || !ok || a.Changed == nil || len(a.Changed) > 0 {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestExecReportsWhatTheProgramSaid(t *testing.T) {
	out, err := Exec{}.Run(context.Background(), Command{Args: []string{"cat"}, Stdin: []byte("hello")})
	if err != nil || string(out) != "hello" {
		t.Fatalf("%q, %v", out, err)
	}
	_, err = Exec{}.Run(context.Background(), Command{Args: []string{"ls", "/no/such"}})
	if err == nil || !strings.HasPrefix(err.Error(), "ls /no/such: exit status 2: ") {
		t.Fatalf("got %v", err)
	}
	if _, err = (Exec{}).Run(context.Background(), Command{Args: []string{"sleep", "60"}, Timeout: 1}); err == nil || !strings.Contains(err.Error(), "stopped after") {
		t.Fatalf("got %v", err)
	}
}

func TestDefaultIsComplete(t *testing.T) {
	o := Default(slog.New(slog.DiscardHandler))
	if o.Root != "/" || o.Runner == nil || o.Health == nil || o.Poll == 0 || o.Log == nil {
		t.Fatalf("%+v", o)
	}
}
