// Package archtest holds the rules about the tree itself: who may import whom, and which folder names are banned.
// A failure prints why the rule is there.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "popfleet"

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// room is one row of the import table: a path prefix, the prefixes of ours it may import (besides itself and
// internal/), and why.
type room struct {
	prefix string
	may    []string
	why    string
}

// The longest matching prefix decides.
var rooms = []room{
	{"inventory", nil, "what should exist depends on nothing we run"},
	{"playbooks", []string{"inventory"}, "a node's spec follows from the inventory alone"},
	{"playbooks/spec", nil, "the node side carries this type: it must drag nothing along"},
	{"provision", []string{"inventory", "playbooks"}, "machines are brought up from values; the node side is reached by its protocol only"},
	{"agents", []string{"playbooks/spec"}, "the node binary knows what it should look like and nothing of how it was rented"},
	{"replication", nil, "the database proxy can be used, tested and reasoned about alone"},
	{"transport", []string{"dns/feed"}, "the edge talks to DNS by message"},
	{"dns", nil, "the DNS server can be used alone"},
	{"dns/feed", nil, "the message DNS accepts is a plain value"},
	{"fleet", []string{"inventory", "playbooks", "provision", "agents"}, "the operator's side never links what runs on nodes or in the lab"},
	{"lab", []string{"inventory"}, "a simulator never imports provision, so one misreading can't hide on both sides"},
	{"lab/e2e", []string{""}, "the one place where everything meets"},
	{"examples", nil, "an example uses public faces only, as a user would"},
	{"cmd/fleet", []string{"fleet"}, "mains are thin: one binary, one room"},
	{"cmd/fleet-agent", []string{"agents", "playbooks/spec"}, "mains are thin: one binary, one room"},
	{"cmd/fleet-transport", []string{"transport"}, "mains are thin: one binary, one room"},
	{"cmd/fleet-dns", []string{"dns"}, "mains are thin: one binary, one room"},
	{"cmd/fleet-replicator", []string{"replication"}, "mains are thin: one binary, one room"},
	{"cmd/fleet-lab", []string{"lab"}, "mains are thin: one binary, one room"},
	{"internal", nil, "what everybody may import must not know any room"},
}

// Exact exceptions: importer prefix → forbidden prefix, though the table above would allow it.
var never = []struct{ from, to, why string }{
	{"fleet", "agents/", "the operator's side knows the report type, not how it is collected"},
	{"cmd/fleet-lab", "lab/e2e", "tests are not part of the binary"},
}

// SDKs live in exactly one folder each, so that a provider's or a library's change has one place to go.
var homes = []struct{ sdk, home, why string }{
	{"github.com/hetznercloud/hcloud-go", "provision/hetznercloud", "one driver per provider"},
	{"github.com/ovh/go-ovh", "provision/ovh", "one driver per provider"},
	{"github.com/pulumi/", "provision/stack", "declarative cloud objects are one room's business"},
	{"github.com/anatol/smart.go", "agents/collect/smart", "its reflection and ioctls stay behind one door"},
	{"filippo.io/age", "inventory", "secrets at rest are the inventory's"},
}

var banned = []string{"pkg", "util", "utils", "common", "helpers", "types", "base", "misc"}

func TestImportTable(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		own, ok := roomOf(from)
		if !ok {
			t.Errorf("%s is in no room of the import table: give it a row in internal/archtest and a sentence in ARCHITECTURE.md", from)
			continue
		}
		for _, imp := range p.Imports {
			checkImport(t, own, from, imp)
		}
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			if to, ours := strings.CutPrefix(imp, module+"/"); ours {
				checkOurs(t, own, from, to)
			}
		}
	}
}

func TestFolderNames(t *testing.T) {
	for _, p := range packages(t) {
		for _, part := range strings.Split(p.ImportPath, "/") {
			for _, b := range banned {
				if part == b {
					t.Errorf("%s: a folder called %q says nothing of what is in it; name the thing it holds", p.ImportPath, b)
				}
			}
		}
	}
}

func checkImport(t *testing.T, own room, from, imp string) {
	t.Helper()
	if to, ours := strings.CutPrefix(imp, module+"/"); ours {
		checkOurs(t, own, from, to)
		return
	}
	for _, h := range homes {
		if strings.HasPrefix(imp, h.sdk) && !below(from, h.home) && !below(from, "lab/e2e") {
			t.Errorf("%s imports %s, which lives in %s only: %s", from, imp, h.home, h.why)
		}
	}
}

func checkOurs(t *testing.T, own room, from, to string) {
	t.Helper()
	for _, n := range never {
		if below(from, n.from) && strings.HasPrefix(to, n.to) {
			t.Errorf("%s imports %s: %s", from, to, n.why)
		}
	}
	if below(to, "internal") {
		return
	}
	target, _ := roomOf(to)
	if target.prefix == own.prefix || below(to, own.prefix) {
		return
	}
	for _, m := range own.may {
		if m == "" || below(to, m) {
			return
		}
	}
	t.Errorf("%s imports %s; room %s may import %s: %s", from, to, own.prefix, allowed(own), own.why)
}

func allowed(r room) string {
	if len(r.may) == 0 {
		return "no other room"
	}
	return strings.Join(r.may, ", ")
}

func roomOf(p string) (room, bool) {
	var best room
	found := false
	for _, r := range rooms {
		if below(p, r.prefix) && len(r.prefix) >= len(best.prefix) {
			best, found = r, true
		}
	}
	return best, found
}

func below(p, prefix string) bool {
	return prefix == "" || p == prefix || strings.HasPrefix(p, prefix+"/")
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "-tags", "e2e", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if path.Base(p.ImportPath) != module {
			all = append(all, p)
		}
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages: the rules would hold over nothing", len(all))
	}
	return all
}
