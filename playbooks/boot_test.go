package playbooks

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"popfleet/playbooks/spec"
)

const installedAgent = "/opt/fleet/current/bin/fleet-agent"

// TestPackageRunsAreDeclared has a real dpkg read the hooks of the compiled spec and call them. A node without them becomes
// suspect with every kernel.
func TestPackageRunsAreDeclared(t *testing.T) {
	n := mustCompile(t, input())
	at := slices.IndexFunc(n.Files, func(f spec.File) bool { return f.Path == "/etc/dpkg/dpkg.cfg.d/fleet-boot" })
	if at < 0 {
		t.Fatal("the spec has no hooks for dpkg")
	}
	hooks := string(n.Files[at].Content)
	if strings.Count(hooks, installedAgent+" package-run ") != 2 {
		t.Fatalf("hooks:\n%s", hooks)
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs dpkg, and root")
	}
	home := t.TempDir()
	agent, heard := filepath.Join(home, "agent"), filepath.Join(home, "heard")
	write := func(path, text string, mode os.FileMode) {
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(".dpkg.cfg", strings.ReplaceAll(hooks, installedAgent, agent), 0o644)
	write("root/var/lib/dpkg/status", "", 0o644)
	for _, dir := range []string{"info", "updates", "triggers"} {
		write("root/var/lib/dpkg/"+dir+"/.keep", "", 0o644)
	}
	dpkg := func() {
		t.Helper()
		c := exec.CommandContext(t.Context(), "dpkg", "--root="+filepath.Join(home, "root"), "--log="+filepath.Join(home, "log"), "--configure", "-a")
		c.Env = append(os.Environ(), "HOME="+home)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	dpkg() // without an agent
	for _, code := range []string{"0", "1"} {
		write("heard", "", 0o644)
		write("agent", "#!/bin/sh\necho $* >> "+heard+"\nexit "+code+"\n", 0o755)
		dpkg()
		said, err := os.ReadFile(heard)
		m := regexp.MustCompile(`^package-run begin (\d+)\npackage-run end (\d+)\n$`).FindStringSubmatch(string(said))
		if err != nil || m == nil || m[1] != m[2] {
			t.Errorf("an agent that ends with %s heard %q, %v", code, said, err)
		}
	}
}
