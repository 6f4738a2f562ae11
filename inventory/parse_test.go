package inventory

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write what is got to the golden files and the schema")

func compareAddresses() cmp.Option { return cmpopts.EquateComparable(Controller{}) }

func TestParseTemplate(t *testing.T) {
	f, err := Parse("fleet.yaml", Template("demo", "demo.test"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "demo" || f.Domain != "demo.test" || f.Services.DNS.TTL != 30*time.Second {
		t.Errorf("got %+v", f)
	}
	want := Resolved{Name: "fsn-2", PoP: "fsn", Place: Place{50.48, 12.37}, Machine: Machine{
		Provider: "hetznercloud", ServerType: "cx23", Location: "fsn1", Image: "debian-12", Disks: Disks{MinGB: 8},
	}}
	got, ok := f.Node("fsn-2")
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Error(diff)
	}
	if _, ok := f.Node("gra-1"); ok {
		t.Error("found a node that is not in the file")
	}
}

// The template shows the defaults; it must not drift from them.
func TestTemplateSaysTheDefaults(t *testing.T) {
	f, err := Parse("fleet.yaml", Template("demo", "demo.test"))
	if err != nil {
		t.Fatal(err)
	}
	d := Default()
	if diff := cmp.Diff(d.Defaults, f.Defaults); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(d.Services, f.Services); diff != "" {
		t.Error(diff)
	}
}

const minimal = `
version: 1
name: demo
domain: demo.test
controllers: [{name: ctl, address: "[2001:db8::1]:8440"}]
defaults: {location: fsn1, disks: {min_gb: 20}}
pops:
  - name: fsn
    machine: {server_type: cx33}
    nodes:
      - name: fsn-1
        machine: {location: nbg1, disks: {serials: [S1, S2]}}
      - name: fsn-2
  - name: hel
    nodes: [{name: hel-1}]
`

func TestResolvedNearestWins(t *testing.T) {
	f, err := Parse("fleet.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	machine := func(serverType, location string, serials ...string) Machine {
		return Machine{Provider: "hetznercloud", ServerType: serverType, Location: location, Image: "debian-12", Disks: Disks{serials, 20}}
	}
	want := []Resolved{
		{Name: "fsn-1", PoP: "fsn", Machine: machine("cx33", "nbg1", "S1", "S2")},
		{Name: "fsn-2", PoP: "fsn", Machine: machine("cx33", "fsn1")},
		{Name: "hel-1", PoP: "hel", Machine: machine("cx23", "fsn1")},
	}
	if diff := cmp.Diff(want, f.Resolved()); diff != "" {
		t.Error(diff)
	}
}

func TestYAMLRoundTrip(t *testing.T) {
	for _, text := range []string{minimal, string(Template("demo", "demo.test"))} {
		roundTrip(t, []byte(text))
	}
}

// roundTrip checks that what parses is written to what parses to the same; it reports whether data parsed.
func roundTrip(t *testing.T, data []byte) bool {
	t.Helper()
	f, err := Parse("fleet.yaml", data)
	if err != nil {
		return false
	}
	text, err := f.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("written.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(f, again, compareAddresses()); diff != "" {
		t.Fatalf("%s\n%s", diff, text)
	}
	return true
}

// Every file of testdata/bad is wrong in the ways its golden file lists, all at once.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("fleet.yaml", data)
			if err == nil {
				t.Fatal("accepted")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update accepts it)\n%s", path, diff)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "fleet init") {
		t.Errorf("absent file: %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
	big := strings.Repeat("# a comment\n", maxFileBytes/10)
	if err := os.WriteFile(path, []byte(big), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: %v", err)
	}
}

// Deep nesting must be refused before a parser that recurses sees it.
func TestDeepNestingIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", 100_000),
		"braces":   strings.Repeat("{a: ", 100_000),
		"dashes":   strings.Repeat("- ", 100_000) + "a",
		"marks":    strings.Repeat("? ", 100_000) + "a",
		"tags":     "a: " + strings.Repeat("!a ", 100_000) + "b",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("fleet.yaml", []byte(text)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// A thousand nodes are a fleet; a hundred thousand keys are an attack on the parser.
func TestSizeIsBounded(t *testing.T) {
	var fleet strings.Builder
	fleet.WriteString("version: 1\nname: demo\ndomain: demo.test\ncontrollers: [{name: c, address: 192.0.2.1:1}]\n")
	fleet.WriteString("defaults: {location: fsn1}\npops:\n")
	for p := range 50 {
		fmt.Fprintf(&fleet, "  - name: p%d\n    nodes:\n", p)
		for n := range 20 {
			fmt.Fprintf(&fleet, "      - name: p%d-%d\n        machine: {disks: {serials: [S%d-%d]}}\n", p, n+1, p, n)
		}
	}
	f, err := Parse("fleet.yaml", []byte(fleet.String()))
	if err != nil || len(f.Resolved()) != 1000 {
		t.Errorf("a thousand nodes: %v", err)
	}
	var keys strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	if _, err := Parse("fleet.yaml", []byte(keys.String())); err == nil || !strings.Contains(err.Error(), "YAML tokens") {
		t.Errorf("a hundred thousand keys: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add(Template("demo", "demo.test"))
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { roundTrip(t, data) })
}
