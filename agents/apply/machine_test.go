package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/playbooks/spec"
)

// machine is a Debian in a temporary directory: files are real, programs are answered by it. All accounts have the ids
// of whoever runs the test, so that no root is needed.
type machine struct {
	t     *testing.T
	root  string
	calls []string          // mutating programs, as run
	units map[string]*unit  // what systemd would know
	nft   string            // loaded ruleset
	boot  map[string]string // unit → content of everything it was started with
	sick  map[string]string // socket → why it is unhealthy
	// crash is called before every program and every blob; an error from it ends the run there.
	crash func(what string) error
	blobs map[string][]byte
	sent  []string // blobs that travelled
	mu    sync.Mutex
	said  []spec.Event
}

type unit struct{ enabled, active bool }

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), units: map[string]*unit{}, boot: map[string]string{}, sick: map[string]string{},
		blobs: map[string][]byte{}, crash: func(string) error { return nil }}
	m.write("/etc/fleet/node.json", `{"fleet":"demo","node":"fsn-1","pop":"fsn","domain":"demo.test","run":"r1"}`)
	m.write("/etc/passwd", fmt.Sprintf("root:x:%d:%d:root:/root:/bin/bash\n", os.Getuid(), os.Getgid()))
	m.write("/etc/group", fmt.Sprintf("root:x:%d:\n", os.Getgid()))
	m.write("/var/lib/dpkg/status", "Package: nftables\nStatus: install ok installed\n\nPackage: gone\nStatus: deinstall ok config-files\n")
	m.write("/proc/sys/kernel/random/boot_id", "3f6c\n")
	m.write("/proc/sys/net/ipv4/tcp_mtu_probing", "0\n")
	m.write("/proc/sys/net/ipv4/tcp_rmem", "4096\t87380\t6291456\n")
	return m
}

func (m *machine) write(p, content string) {
	m.t.Helper()
	full := filepath.Join(m.root, p)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(p string) string {
	b, err := os.ReadFile(filepath.Join(m.root, p))
	if err != nil {
		return ""
	}
	return string(b)
}

func (m *machine) options() Options {
	return Options{Root: m.root, Runner: m, Poll: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Health: func(_ context.Context, socket string) error {
			if why := m.sick[socket]; why != "" {
				return errors.New(why)
			}
			return nil
		}}
}

// Run implements Runner.
func (m *machine) Run(_ context.Context, c Command) ([]byte, error) {
	line := strings.Join(c.Args, " ")
	if err := m.crash(line); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(line, "systemctl show "):
		return m.show(c.Args[4:]), nil
	case line == "nft --stateless list ruleset":
		return []byte("kernel's words for: " + m.nft), nil
	case line == "nft --check --file -":
		if strings.Contains(string(c.Stdin), "syntax error") {
			return nil, errors.New("nft --check: exit status 1: syntax error, unexpected string")
		}
		return nil, nil
	case strings.HasPrefix(line, "journalctl"):
		return []byte("listen :53: address already in use\n"), nil
	}
	m.calls = append(m.calls, line)
	return nil, m.mutate(c)
}

func (m *machine) mutate(c Command) error {
	switch c.Args[0] {
	case "systemd-sysusers":
		m.sysusers()
	case "nft":
		m.nft = m.read(c.Args[2])
	case "systemctl":
		return m.systemctl(c.Args[1:])
	case "apt-get":
		if c.Args[len(c.Args)-1] == "nosuch" {
			return errors.New("apt-get: exit status 100: E: Unable to locate package nosuch")
		}
	default:
		return fmt.Errorf("unexpected program %v", c.Args)
	}
	return nil
}

// sysusers does what systemd-sysusers does with the file it is given.
func (m *machine) sysusers() {
	groups := map[string][]string{}
	var order, users []string
	for line := range strings.SplitSeq(m.read(sysusersPath), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "g":
			order = append(order, f[1])
		case len(f) > 4 && f[0] == "u":
			users = append(users, fmt.Sprintf("%s:x:%d:%d::%s:/usr/sbin/nologin", f[1], os.Getuid(), os.Getgid(), f[4]))
		case len(f) == 3 && f[0] == "m":
			groups[f[2]] = append(groups[f[2]], f[1])
		}
	}
	m.write("/etc/passwd", fmt.Sprintf("root:x:%d:%d:root:/root:/bin/bash\n%s\n", os.Getuid(), os.Getgid(), strings.Join(users, "\n")))
	out := fmt.Sprintf("root:x:%d:\n", os.Getgid())
	for _, g := range order {
		out += fmt.Sprintf("%s:x:%d:%s\n", g, os.Getgid(), strings.Join(groups[g], ","))
	}
	m.write("/etc/group", out)
}

func (m *machine) show(names []string) []byte {
	var blocks []string
	for _, n := range names {
		load, active, file := "not-found", "inactive", ""
		if m.read(unitDir+n) != "" || m.units[n] != nil {
			load, file = "loaded", "disabled"
		}
		if u := m.units[n]; u != nil {
			if u.enabled {
				file = "enabled"
			}
			if u.active {
				active = "active"
			}
		}
		blocks = append(blocks, fmt.Sprintf("Id=%s\nNames=%s\nLoadState=%s\nActiveState=%s\nUnitFileState=%s\nNeedDaemonReload=no\n", n, n, load, active, file))
	}
	return []byte(strings.Join(blocks, "\n"))
}

func (m *machine) systemctl(args []string) error {
	if args[0] == "daemon-reload" {
		return nil
	}
	if args[0] == "--no-reload" { // as systemd: what it knows of the unit's boot state is as old as the last reload
		args = args[1:]
	}
	name := args[1]
	if m.units[name] == nil {
		if m.read(unitDir+name) == "" {
			return fmt.Errorf("systemctl: exit status 5: unit %s not found", name)
		}
		m.units[name] = &unit{}
	}
	switch args[0] {
	case "enable", "disable":
		m.units[name].enabled = args[0] == "enable"
	case "stop":
		m.units[name].active = false
	default:
		m.units[name].active = true
		m.boot[name] = m.inputsOf(name)
	}
	return nil
}

// inputsOf is what the unit reads when it starts.
func (m *machine) inputsOf(name string) string {
	service := strings.TrimSuffix(strings.TrimPrefix(name, "fleet-"), ".service")
	return m.read(unitDir+name) + m.read("/etc/fleet/"+service+".json") + m.read("/opt/fleet/current/bin/fleet-"+service)
}

// Emit implements exchange.Session.
func (m *machine) Emit(e spec.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, e)
}

// Fetch implements exchange.Session.
func (m *machine) Fetch(_ context.Context, blobs []spec.Blob, got func(spec.Blob, io.Reader) error) error {
	for _, b := range blobs {
		if err := m.crash("blob"); err != nil {
			return err
		}
		m.sent = append(m.sent, string(m.blobs[b.SHA256]))
		if err := got(b, strings.NewReader(string(m.blobs[b.SHA256]))); err != nil {
			return err
		}
	}
	return nil
}

// transcript is all that left the machine, in one string.
func (m *machine) transcript() string {
	var b strings.Builder
	for _, e := range m.said {
		fmt.Fprintf(&b, "%s %s %s %s\n", e.Kind, e.Step, e.Status, e.Text)
	}
	return b.String()
}

// snapshot is every entry below the root with its metadata and content: equal snapshots mean that nothing was written.
func (m *machine) snapshot() map[string]string {
	out := map[string]string{}
	err := filepath.WalkDir(m.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, _ := os.ReadFile(p)
		if !strings.HasPrefix(p, filepath.Join(m.root, "run")) {
			out[p] = fmt.Sprintf("%v %v %x", info.Mode(), info.ModTime(), sha256.Sum256(content))
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// bundle makes a release of path → content and lets the operator's end have its blobs.
func (m *machine) bundle(files map[string]string) *spec.Release {
	r := &spec.Release{}
	for _, p := range []string{"bin/fleet-dns", "bin/fleet-app"} {
		if c, ok := files[p]; ok {
			m.blobs[digest(c)] = []byte(c)
			r.Files = append(r.Files, spec.ReleaseFile{Path: p, Mode: 0o755, SHA256: digest(c), SizeBytes: int64(len(c))})
		}
	}
	r.Digest = r.ManifestDigest()
	return r
}

// one is the digest of the release in node's spec.
func (m *machine) one() string { return m.node().Release.Digest }

func digest(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

// node is a spec that uses every stage.
func (m *machine) node() *spec.Node {
	n := &spec.Node{
		Version: 1, Name: "fsn-1", Packages: []string{"nftables"},
		Groups: []spec.Group{{Name: "fleet"}, {Name: "fleet-dns"}, {Name: "fleet-app"}},
		Users: []spec.User{
			{Name: "fleet-dns", Group: "fleet-dns", Groups: []string{"fleet"}, Home: "/var/lib/fleet/dns"},
			{Name: "fleet-app", Group: "fleet-app", Groups: []string{"fleet"}},
		},
		Dirs: []spec.Dir{{Path: "/etc/fleet/tls", Mode: 0o750, Owner: "root", Group: "fleet"}},
		Files: []spec.File{
			{Path: "/etc/fleet/dns.json", Mode: 0o640, Owner: "root", Group: "fleet-dns", Content: []byte("{\"ttl\":30}\n"), Restart: []string{"fleet-dns.service"}},
			{Path: "/etc/fleet/app.json", Mode: 0o640, Owner: "root", Group: "fleet-app", Content: []byte("{\"a\":1}\n"), Restart: []string{"fleet-app.service"}},
			{Path: "/etc/fleet/tls/dns.key", Mode: 0o640, Owner: "root", Group: "fleet-dns", Content: []byte("TOP-SECRET-1\n"), Secret: true},
			{Path: "/etc/systemd/resolved.conf.d/fleet.conf", Mode: 0o644, Owner: "root", Group: "root", Content: []byte("[Resolve]\n"), Restart: []string{"systemd-resolved.service"}},
		},
		Sysctl:   []spec.Sysctl{{Key: "net.ipv4.tcp_mtu_probing", Value: "1"}, {Key: "net.ipv4.tcp_rmem", Value: "4096 87380 6291456"}},
		Nftables: "table inet fleet {}\n",
		Release:  m.bundle(map[string]string{"bin/fleet-dns": "dns 1", "bin/fleet-app": "app 1"}),
		Units: []spec.Unit{
			{Name: "fleet-dns.service", Content: "[Service]\nExecStart=dns\n", Enabled: true, Running: true, Release: "bin/fleet-dns"},
			{Name: "fleet-app.service", Content: "[Service]\nExecStart=app\n", Enabled: true, Running: true, Release: "bin/fleet-app"},
		},
		Checks: []spec.Check{{Service: "dns", Socket: "/run/fleet-dns/control.sock", TimeoutSec: 1}},
	}
	if err := n.Validate(); err != nil {
		m.t.Fatal(err)
	}
	return n
}
