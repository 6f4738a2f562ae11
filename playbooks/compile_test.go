package playbooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/playbooks/spec"
)

var update = flag.Bool("update", false, "rewrite golden files")

// fakeSecrets names what it was asked for in what it returns.
type fakeSecrets struct{ err error }

func (f fakeSecrets) Leaf(service, node string, names []string) (cert, key []byte, err error) {
	return fmt.Appendf(nil, "CERT %s %s %s\n", service, node, strings.Join(names, ",")), []byte("KEY " + service + "\n"), f.err
}

func (f fakeSecrets) CACertPEM() ([]byte, error) { return []byte("CA\n"), f.err }

func fleet() *inventory.Fleet {
	f := inventory.Default()
	f.Name, f.Domain = "demo", "demo.test"
	f.Controllers = []inventory.Controller{{Name: "ctl", Address: netip.MustParseAddrPort("198.18.0.1:8440")}}
	f.PoPs = []inventory.PoP{
		{Name: "fsn", Place: inventory.Place{Lat: 50.47, Lon: 12.36}, Nodes: []inventory.Node{{Name: "fsn-1"}, {Name: "fsn-2"}}},
		{Name: "gra", Place: inventory.Place{Lat: 50.98, Lon: 2.13}, Nodes: []inventory.Node{{Name: "gra-1"}, {Name: "gra-2"}}},
	}
	return f
}

func testRelease() *spec.Release {
	r := &spec.Release{}
	for i, name := range []string{"bin/comments", "bin/fleet-agent", "bin/fleet-dns", "bin/fleet-replicator", "bin/fleet-store", "bin/fleet-transport", "share/city.mmdb"} {
		mode := uint32(0o755)
		if strings.HasPrefix(name, "share") {
			mode = 0o644
		}
		r.Files = append(r.Files, spec.ReleaseFile{Path: name, Mode: mode, SHA256: fmt.Sprintf("%064d", i), SizeBytes: 10})
	}
	r.Digest = r.ManifestDigest()
	return r
}

func input() Input {
	addr := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	return Input{Fleet: fleet(), Node: "fsn-1", Release: testRelease(), Secrets: fakeSecrets{}, Pace: pace.Real,
		Addresses: map[string][]netip.Addr{ // gra-2 does not exist yet
			"fsn-1": addr("2001:db8:1:1::1", "198.18.0.10"), "fsn-2": addr("198.18.0.11", "2001:db8:1:2::1"), "gra-1": addr("198.18.0.20")}}
}

// show is a spec as a person reads it.
func show(n spec.Node) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "node %s, release %s, packages %v\n", n.Name, n.Release.Digest[:12], n.Packages)
	for _, g := range n.Groups {
		fmt.Fprintf(&b, "group %s\n", g.Name)
	}
	for _, u := range n.Users {
		fmt.Fprintf(&b, "user %s:%s %v %s\n", u.Name, u.Group, u.Groups, u.Home)
	}
	for _, d := range n.Dirs {
		fmt.Fprintf(&b, "dir %s %04o %s:%s\n", d.Path, d.Mode, d.Owner, d.Group)
	}
	for _, f := range n.Files {
		fmt.Fprintf(&b, "\n=== file %s %04o %s:%s secret=%v restart=%v reload=%v\n%s", f.Path, f.Mode, f.Owner, f.Group, f.Secret, f.Restart, f.Reload, f.Content)
	}
	fmt.Fprintln(&b)
	for _, s := range n.Sysctl {
		fmt.Fprintf(&b, "sysctl %s = %s\n", s.Key, s.Value)
	}
	fmt.Fprintf(&b, "\n=== nftables\n%s", n.Nftables)
	for _, u := range n.Units {
		fmt.Fprintf(&b, "\n=== unit %s enabled=%v running=%v release=%s\n%s", u.Name, u.Enabled, u.Running, u.Release, u.Content)
	}
	fmt.Fprintln(&b)
	for _, c := range n.Checks {
		fmt.Fprintf(&b, "check %s %s %ds\n", c.Service, c.Socket, c.TimeoutSec)
	}
	return b.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	p := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, got, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (go test -update rewrites it):\n%s", p, d)
	}
}

func mustCompile(t *testing.T, in Input) spec.Node {
	t.Helper()
	n, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCompileGolden(t *testing.T) {
	golden(t, "embedded.golden", show(mustCompile(t, input())))
	in := input()
	in.Node, in.Pace = "gra-1", pace.Emulated
	s := &in.Fleet.Services
	s.Store.URI, s.DNS.MMDB, s.DNS.TTL = "mongodb://app:pw@db.example:27017", "geo/city.mmdb", time.Minute
	s.App.Env = map[string]string{"B": `say "$1"`, "A": "plain"}
	s.Transport.Names = []string{"www.example.com"}
	golden(t, "external.golden", show(mustCompile(t, in)))
}

func TestCompileIsDeterministic(t *testing.T) {
	first, err := json.Marshal(mustCompile(t, input()))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		in := input()
		for _, a := range in.Addresses {
			slices.Reverse(a) // as another provider might list them
		}
		again, err := json.Marshal(mustCompile(t, in))
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("another result for the same input, %v", err)
		}
	}
}

func TestExternalStoreLeavesTheServiceOut(t *testing.T) {
	in := input()
	in.Fleet.Services.Store.URI = "mongodb://user:hunter2@db"
	n := mustCompile(t, in)
	if slices.ContainsFunc(n.Units, func(u spec.Unit) bool { return u.Name == "fleet-store.service" }) {
		t.Error("the store is still there")
	}
	for _, f := range n.Files {
		if strings.Contains(string(f.Content), "hunter2") && !f.Secret {
			t.Errorf("%s shows a password", f.Path)
		}
	}
}

func TestEveryConfigurationIsRestartedFor(t *testing.T) {
	n := mustCompile(t, input())
	for _, f := range n.Files {
		leaf := strings.HasPrefix(f.Path, "/etc/fleet/tls/") && f.Path != "/etc/fleet/tls/ca.crt" // services read a renewed one by themselves
		hook := f.Mode&0o111 != 0 || strings.HasPrefix(f.Path, "/etc/dpkg/")                      // read anew whenever it runs
		if (leaf || hook) != (len(f.Restart)+len(f.Reload) == 0) {
			t.Errorf("%s: restart=%v reload=%v", f.Path, f.Restart, f.Reload)
		}
		if strings.HasSuffix(f.Path, ".key") && (!f.Secret || f.Mode != 0o640 || f.Group == "root") {
			t.Errorf("%s: secret=%v %04o %s", f.Path, f.Secret, f.Mode, f.Group)
		}
	}
	for _, u := range n.Units {
		if strings.HasSuffix(u.Name, ".service") && u.Content != "" && (!strings.Contains(u.Content, "NoNewPrivileges=yes") || !strings.Contains(u.Content, "CapabilityBoundingSet=")) {
			t.Errorf("%s is not hardened", u.Name)
		}
	}
}

func TestNameserversAreSpreadOverPoPs(t *testing.T) {
	var nodes []Node
	for i := range 10 {
		nodes = append(nodes, Node{Name: fmt.Sprintf("fsn-%d", i), PoP: "fsn"})
	}
	nodes = append(nodes, Node{Name: "gra-1", PoP: "gra"}, Node{Name: "hel-1", PoP: "hel"})
	want := []string{"fsn-0.x", "gra-1.x", "hel-1.x", "fsn-1.x", "fsn-2.x", "fsn-3.x"}
	if d := cmp.Diff(want, nameservers(nodes, "x")); d != "" {
		t.Error(d)
	}
}

func TestCompileRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(*Input)
		want   string
	}{
		"unknown node": {func(in *Input) { in.Node = "nowhere-1" }, "compile node nowhere-1: node nowhere-1 is not in the fleet file"},
		"no address":   {func(in *Input) { in.Node = "gra-2" }, "node gra-2 has no address yet"},
		"no release":   {func(in *Input) { in.Release = nil }, "fleet, release and secrets are needed"},
		"no binary": {func(in *Input) { in.Fleet.Services.App.Binary = "shop" },
			"builtin/40-app.yaml:36:5: units[0].release: the release has no bin/shop; build it, or name another one"},
		"no mmdb":   {func(in *Input) { in.Fleet.Services.DNS.MMDB = "other.mmdb" }, "the release has no share/other.mmdb"},
		"no secret": {func(in *Input) { in.Secrets = fakeSecrets{errors.New("vault is locked")} }, "certificate: vault is locked"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in := input()
			c.change(&in)
			if _, err := Compile(in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}
