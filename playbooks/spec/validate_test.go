package spec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func good() Node {
	sha := strings.Repeat("a", 64)
	release := &Release{Files: []ReleaseFile{{Path: "bin/fleet-dns", Mode: 0o755, SHA256: sha, SizeBytes: 3}}}
	release.Digest = release.ManifestDigest()
	return Node{
		Version: 1, Name: "fsn-1", Packages: []string{"nftables"},
		Groups:   []Group{{Name: "fleet"}, {Name: "fleet-dns"}},
		Users:    []User{{Name: "fleet-dns", Group: "fleet-dns", Groups: []string{"fleet"}, Home: "/var/lib/fleet/dns"}},
		Dirs:     []Dir{{Path: "/etc/fleet", Mode: 0o755, Owner: "root", Group: "root"}},
		Files:    []File{{Path: "/etc/fleet/dns.json", Mode: 0o640, Owner: "root", Group: "fleet-dns", Content: []byte("{}"), Restart: []string{"fleet-dns.service"}}},
		Sysctl:   []Sysctl{{Key: "net.ipv4.tcp_mtu_probing", Value: "1"}},
		Nftables: "table inet fleet {}\n",
		Release:  release,
		Units:    []Unit{{Name: "fleet-dns.service", Content: "[Service]\n", Enabled: true, Running: true, Release: "bin/fleet-dns"}},
		Checks:   []Check{{Service: "dns", Socket: "/run/fleet-dns/control.sock", TimeoutSec: 30}},
	}
}

func TestValidateAccepts(t *testing.T) {
	n := good()
	if err := n.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestValidateRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(*Node)
		want   string
	}{
		"version":            {func(n *Node) { n.Version = 2 }, "only 1 is known"},
		"name":               {func(n *Node) { n.Name = "../x" }, "expected a node name"},
		"relative path":      {func(n *Node) { n.Files[0].Path = "etc/x" }, "absolute, clean"},
		"dotdot":             {func(n *Node) { n.Files[0].Path = "/etc/../root/x" }, "absolute, clean"},
		"proc":               {func(n *Node) { n.Files[0].Path = "/proc/sysrq-trigger" }, "not below /proc"},
		"dev":                {func(n *Node) { n.Dirs[0].Path = "/dev" }, "not below /proc"},
		"sys":                {func(n *Node) { n.Files[0].Path = "/sys/x" }, "not below /proc"},
		"release tree":       {func(n *Node) { n.Files[0].Path = "/opt/fleet/current" }, "not below /proc"},
		"identity":           {func(n *Node) { n.Files[0].Path = "/etc/fleet/node.json" }, "belongs to the installer"},
		"setuid":             {func(n *Node) { n.Files[0].Mode = 0o4755 }, "mode 4755"},
		"wide secret":        {func(n *Node) { n.Files[0].Secret, n.Files[0].Mode = true, 0o644 }, "a secret is 0640"},
		"big file":           {func(n *Node) { n.Files[0].Content = make([]byte, MaxFileBytes+1) }, "belong into the release"},
		"twice":              {func(n *Node) { n.Files = append(n.Files, n.Files[0]) }, "already named as a file"},
		"file over unit":     {func(n *Node) { n.Files[0].Path = "/etc/systemd/system/fleet-dns.service" }, "already named as a file"},
		"root user":          {func(n *Node) { n.Users[0].Name = "root" }, "not ours"},
		"package option":     {func(n *Node) { n.Packages = []string{"-oX=y"} }, "bad name"},
		"unit option":        {func(n *Node) { n.Units[0].Name = "--now.service" }, "bad name"},
		"sysctl path":        {func(n *Node) { n.Sysctl[0].Key = "net/../x" }, "bad name"},
		"sysctl lines":       {func(n *Node) { n.Sysctl[0].Value = "1\n2" }, "expected one line"},
		"release escape":     {func(n *Node) { n.Release.Files[0].Path = "../x" }, "bad name"},
		"release dot":        {func(n *Node) { n.Release.Files[0].Path = "bin/.." }, "bad name"},
		"release sha":        {func(n *Node) { n.Release.Files[0].SHA256 = "xyz" }, "64 hex digits"},
		"release digest":     {func(n *Node) { n.Release.Digest = strings.Repeat("0", 64) }, "its files have the digest"},
		"binary not there":   {func(n *Node) { n.Units[0].Release = "bin/other" }, "which the release does not have"},
		"check without time": {func(n *Node) { n.Checks[0].TimeoutSec = 0 }, "expected 1 to"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := good()
			c.change(&n)
			var e *Error
			if err := n.Validate(); !errors.As(err, &e) || e.Code != CodeBadSpec || !strings.Contains(e.Message, c.want) {
				t.Fatalf("got %v, want %q with code %s", err, c.want, CodeBadSpec)
			}
		})
	}
}

func TestDecodeNodeIsStrict(t *testing.T) {
	for _, raw := range []string{`{"version":1,"name":"a","extra":1}`, `{"version":1,"name":"a"} {}`, ``, `null`, `[]`} {
		if _, err := DecodeNode([]byte(raw)); err == nil {
			t.Errorf("%q was accepted", raw)
		}
	}
}

func FuzzDecodeNode(f *testing.F) {
	raw, err := json.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"version":1,"name":"a","files":[{"path":"/proc/x"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := DecodeNode(raw)
		if err != nil {
			return
		}
		for _, file := range n.Files {
			if below(file.Path, forbidden) || file.Path[0] != '/' || strings.Contains(file.Path, "..") && strings.Contains(file.Path, "/../") {
				t.Fatalf("accepted path %q", file.Path)
			}
		}
		again, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeNode(again); err != nil && len(again) <= MaxSpecBytes {
			t.Fatalf("what was accepted is refused after a round trip: %v", err)
		}
	})
}
