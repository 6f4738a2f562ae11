package playbooks

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"popfleet/inventory"
	"popfleet/playbooks/spec"
)

func TestBadPlaybooksGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(filepath.Base(f), string(body))
		var invalid *inventory.ErrInvalid
		if !errors.As(err, &invalid) {
			t.Errorf("%s: got %v", f, err)
			continue
		}
		golden(t, "bad/"+filepath.Base(f)+".golden", []byte(err.Error()+"\n"))
	}
}

// folder is an operator's playbooks folder with these files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(body), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func compileWith(t *testing.T, files map[string]string) (spec.Node, error) {
	t.Helper()
	set, err := Load(folder(t, files))
	if err != nil {
		return spec.Node{}, err
	}
	in := input()
	in.Playbooks = set
	in.Release.Files = append(in.Release.Files, spec.ReleaseFile{Path: "bin/metrics", Mode: 0o755, SHA256: strings.Repeat("e", 64)})
	in.Release.Digest = in.Release.ManifestDigest()
	return Compile(in)
}

// The example of the package's documentation works as it stands there.
func TestDocumentedPlaybook(t *testing.T) {
	src, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var body strings.Builder
	for line := range strings.SplitSeq(string(src), "\n") {
		if rest, ok := strings.CutPrefix(line, "//\t"); ok {
			body.WriteString(rest + "\n")
		}
	}
	n, err := compileWith(t, map[string]string{"45-metrics.yaml": body.String()})
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) int {
		return slices.IndexFunc(n.Units, func(u spec.Unit) bool { return u.Name == name })
	}
	if i := at("fleet-metrics.service"); i < at("fleet-app.service") || i > at("fleet-dns.service") || !strings.Contains(n.Units[i].Content, "User=fleet-metrics\n") {
		t.Fatalf("unit at %d:\n%s", i, n.Units[max(i, 0)].Content)
	}
	if !strings.Contains(n.Nftables, "ip saddr @nodes4 tcp dport { 7443, 7444, 7445, 9100 } accept") {
		t.Errorf("port is not open:\n%s", n.Nftables)
	}
	i := slices.IndexFunc(n.Files, func(f spec.File) bool { return f.Path == "/etc/fleet/metrics.json" })
	if i < 0 || string(n.Files[i].Content) != "{\n  \"node\": \"fsn-1\",\n  \"listen\": \":9100\"\n}\n" {
		t.Errorf("file %d: %s", i, n.Files[max(i, 0)].Content)
	}
	if !slices.ContainsFunc(n.Checks, func(c spec.Check) bool { return c.Service == "metrics" && c.TimeoutSec == 30 }) {
		t.Errorf("checks %v", n.Checks)
	}
}

func TestOwnPlaybookTakesABuiltinsPlace(t *testing.T) {
	n, err := compileWith(t, map[string]string{"40-app.yaml": "playbook: app\ndescription: none here\n"})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(n.Units, func(u spec.Unit) bool { return u.Name == "fleet-app.service" }) {
		t.Error("the built-in one is still there")
	}
}

func TestOwnTemplate(t *testing.T) {
	n, err := compileWith(t, map[string]string{
		"templates/motd.tmpl": `{{define "motd"}}welcome to {{.Node.Name}}{{end}}`,
		"95-motd.yaml":        "playbook: motd\nfiles:\n  - path: /etc/motd\n    content: '{{template \"motd\" .}}'\n",
	})
	if err != nil || string(n.Files[len(n.Files)-1].Content) != "welcome to fsn-1" {
		t.Fatalf("%v", err)
	}
}

func TestLoadWithoutFolder(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Fatal(err)
	}
}

func TestCompileProblemsHavePlaces(t *testing.T) {
	cases := map[string]struct{ body, want string }{
		"unknown field": {"playbook: x\nfiles:\n  - path: /etc/x\n    content: '{{.Node.Nam}}'\n", `:4:5: files[0].content: line 1 of the text: `},
		"not json":      {"playbook: x\nfiles:\n  - path: /etc/x\n    format: json\n    content: '{,}'\n", "files[0].content: is not JSON once rendered"},
		"bad when":      {"playbook: x\nwhen: maybe\n", `:2:1: when: renders to "maybe"`},
		"two rulesets":  {"playbook: x\nnftables: flush ruleset\n", "another playbook has the ruleset already"},
		"same file":     {"playbook: x\nfiles:\n  - path: /etc/fleet/dns.json\n    content: x\n", "file /etc/fleet/dns.json: already named as a file"},
		"below /proc":   {"playbook: x\nfiles:\n  - path: /proc/x\n    content: x\n", "not below /proc"},
		"endless":       {"playbook: x\nfiles:\n  - path: /etc/x\n    content: '{{range 3000000}}x{{end}}'\n", "renders to more than"},
		"file name":     {"", "a playbook's file is called NN-name.yaml"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			file := "95-x.yaml"
			if c.body == "" {
				file = "x.yaml"
			}
			if _, err := compileWith(t, map[string]string{file: c.body}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("builtin/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	bad, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range slices.Concat(files, bad) {
		body, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(body))
	}
	f.Fuzz(func(t *testing.T, body string) {
		p, err := Parse("x.yaml", body)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
	})
}
