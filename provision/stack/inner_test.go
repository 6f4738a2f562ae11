package stack

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketOwner(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:A2C4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0
   2: garbage
`
	for _, c := range []struct {
		local, remote, uid int
		ok                 bool
	}{{0xA2C4, 0x1F90, 1000, true}, {0x1F90, 0xA2C4, 0, false}, {1, 2, 0, false}} {
		if uid, ok := socketOwner(strings.NewReader(table), c.local, c.remote); uid != c.uid || ok != c.ok {
			t.Errorf("%d → %d: uid %d %t, want %d %t", c.local, c.remote, uid, ok, c.uid, c.ok)
		}
	}
}

func FuzzSocketOwner(f *testing.F) {
	f.Add("   1: 0100007F:A2C4 0100007F:1F90 01 0:0 00:0 0  1000 0")
	f.Fuzz(func(_ *testing.T, table string) { socketOwner(strings.NewReader(table), 0xA2C4, 0x1F90) })
}

func TestReadLocalState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo.json")
	if d, err := readLocal(path); err != nil || len(d.Resources) != 0 {
		t.Errorf("absent: %v %v", d, err)
	}
	state := `{"version":3,"checkpoint":{"latest":{"resources":[
		{"urn":"u1","type":"pulumi:pulumi:Stack"},
		{"urn":"u2","id":"7","type":"hetznercloud:index:Server","inputs":{"key":"server.fsn-1","node":"fsn-1"}}],
		"pending_operations":[{"type":"creating"}]}}}`
	if err := os.WriteFile(path, []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := readLocal(path)
	if err != nil || len(d.Pending) != 1 || len(d.servers()) != 1 || d.servers()[0] != "fsn-1" {
		t.Errorf("%+v %v", d, err)
	}
	if err := os.WriteFile(path, []byte(`{"version":3,`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readLocal(path); err == nil {
		t.Error("a torn state was read")
	}
}

func TestFits(t *testing.T) {
	for v, ok := range map[string]bool{"v3.200.0": true, "v3.200.7": true, "3.201.0": false, "v2.0.0": false, "": false, "dev": false} {
		if fits(v) != ok {
			t.Errorf("fits(%q) = %t", v, !ok)
		}
	}
}

func TestCLIEnvironmentHoldsNoToken(t *testing.T) {
	t.Setenv("HCLOUD_TOKEN", "secret-token")
	t.Setenv("FLEET_PASSPHRASE", "secret-passphrase")
	if env := strings.Join(inherited(), "\n"); strings.Contains(env, "secret") || !strings.Contains(env, "PATH=") {
		t.Errorf("environment of the CLI:\n%s", env)
	}
}

func TestNoCLIHasAHint(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := FindCLI(t.Context()); !errors.Is(err, ErrNoCLI) || !strings.Contains(err.Error(), "make tools") {
		t.Errorf("error %v", err)
	}
}

func TestOptionsSayAllProblemsAtOnce(t *testing.T) {
	_, err := Options{}.withDefaults(t.Context())
	if err == nil {
		t.Fatal("empty options pass")
	}
	for _, part := range []string{"fleet", "driver", "passphrase"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not mention %s", err, part)
		}
	}
}
