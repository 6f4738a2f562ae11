package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"popfleet/inventory"
)

var passphrase = inventory.SecretText("correct horse battery")

func newTestVault(t *testing.T) *Vault {
	t.Helper()
	v, err := Create(filepath.Join(t.TempDir(), "secrets"), passphrase, Options{Fleet: "demo", WorkFactor: 10})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func reopen(t *testing.T, v *Vault) *Vault {
	t.Helper()
	again, err := Open(v.dir, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestCreateAndOpen(t *testing.T) {
	v := newTestVault(t)
	if got := reopen(t, v).Fleet(); got != "demo" {
		t.Errorf("fleet %q, want demo", got)
	}
	if !Exists(v.dir) || Exists(t.TempDir()) {
		t.Error("Exists does not tell a vault from an empty folder")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(v.dir), ".secrets.new-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestCreateIntoEmptyFolder(t *testing.T) {
	if _, err := Create(t.TempDir(), passphrase, Options{Fleet: "demo", WorkFactor: 10}); err != nil {
		t.Fatal(err)
	}
}

func TestCreateRefuses(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir string
		pass      inventory.Secret
		fleet     string
		want      string
	}{
		{"short passphrase", t.TempDir(), inventory.SecretText("short"), "demo", "too short"},
		{"bad fleet name", t.TempDir(), passphrase, "../demo", "DNS label"},
		{"folder in use", full, passphrase, "demo", "holds notes already"},
		{"vault there", newTestVault(t).dir, passphrase, "demo", ErrExists.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Create(c.dir, c.pass, Options{Fleet: c.fleet, WorkFactor: 10})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	v := newTestVault(t)
	if _, err := Open(v.dir, inventory.SecretText("wrong horse")); !errors.Is(err, ErrWrongPassphrase) {
		t.Errorf("wrong passphrase: got %v", err)
	}
	if _, err := Open(v.dir, inventory.Secret{}); !errors.Is(err, ErrWrongPassphrase) {
		t.Errorf("empty passphrase: got %v", err)
	}
	if _, err := Open(t.TempDir(), passphrase); !errors.Is(err, ErrNoVault) {
		t.Errorf("empty folder: got %v", err)
	}
}

func TestOpenRefusesRecipientsWithoutItself(t *testing.T) {
	v, other := newTestVault(t), newTestVault(t)
	list, err := os.ReadFile(filepath.Join(other.dir, recipientsFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.dir, recipientsFile), list, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(v.dir, passphrase); err == nil || !strings.Contains(err.Error(), "own recipient") {
		t.Errorf("got %v", err)
	}
}

// Whoever can write to the folder knows the public recipient; that must not be enough to plant a host key.
func TestForgedAndMovedFilesAreRefused(t *testing.T) {
	v := newTestVault(t)
	for _, n := range []string{"fsn-1", "fsn-2"} {
		if err := v.SetNodeState(n, NodeState{SystemHostKey: "key of " + n}); err != nil {
			t.Fatal(err)
		}
	}
	forged, err := encrypt([]byte(sealMagic+"AAAA\n{}"), v.files.recipients...)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := os.ReadFile(v.path("nodes/fsn-2/state.age"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"forged": forged, "moved": moved} {
		if err := os.WriteFile(v.path("nodes/fsn-1/state.age"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := v.NodeState("fsn-1"); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: got %v, want ErrTampered", name, err)
		}
	}
}

func TestTruncatedFileIsAnError(t *testing.T) {
	v := newTestVault(t)
	if _, err := v.Node("fsn-1"); err != nil {
		t.Fatal(err)
	}
	path := v.path("nodes/fsn-1/keys.age")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Node("fsn-1"); err == nil {
			t.Fatalf("%d of %d bytes: no error; a new key would have replaced the disk's", n, len(whole))
		}
	}
}

func TestNodeKeysAreMadeOnce(t *testing.T) {
	v := newTestVault(t)
	first, err := v.Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := reopen(t, v).Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := v.Node("fsn-2")
	if err != nil {
		t.Fatal(err)
	}
	if !first.MachineKey.Equal(again.MachineKey) || !first.InstallKey.Equal(again.InstallKey) ||
		!first.RecoveryKey.Equal(again.RecoveryKey) || first.SystemHostKey.Public != again.SystemHostKey.Public {
		t.Error("keys changed between two calls")
	}
	if first.MachineKey.Equal(other.MachineKey) || first.MachineKey.Equal(first.InstallKey) ||
		first.InitramfsHostKey.Public == first.SystemHostKey.Public {
		t.Error("two keys are the same")
	}
}

func TestNodeKeysAreTypeable(t *testing.T) {
	keys, err := newTestVault(t).Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(keys.MachineKey.Reveal()); n != 44 {
		t.Errorf("machine key is %d bytes, want 44 characters of base64", n)
	}
	groups := strings.Split(string(keys.RecoveryKey.Reveal()), " ")
	if len(groups) != 8 {
		t.Fatalf("%d groups, want 8", len(groups))
	}
	for _, g := range groups {
		if len(g) != 5 || strings.Trim(g, recoveryAlphabet) != "" {
			t.Error("a group is not five letters of the alphabet")
		}
	}
}

func TestHostKeysParse(t *testing.T) {
	keys, err := newTestVault(t).Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []KeyPair{keys.InitramfsHostKey, keys.SystemHostKey} {
		signer, err := k.Signer()
		if err != nil {
			t.Fatal(err)
		}
		public, err := k.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if string(signer.PublicKey().Marshal()) != string(public.Marshal()) {
			t.Error("the halves do not belong together")
		}
	}
}

func TestNodeState(t *testing.T) {
	v := newTestVault(t)
	if s, err := v.NodeState("fsn-1"); err != nil || s.Sealed || s.ServerID != "" {
		t.Errorf("unknown node: got %+v, %v; want the zero state", s, err)
	}
	want := NodeState{ServerID: "42", DiskSerials: []string{"S1"}, Sealed: true}
	if err := v.SetNodeState("fsn-1", want); err != nil {
		t.Fatal(err)
	}
	got, err := reopen(t, v).NodeState("fsn-1")
	if err != nil || got.ServerID != "42" || !got.Sealed || len(got.DiskSerials) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNodes(t *testing.T) {
	v := newTestVault(t)
	if all, err := v.Nodes(); err != nil || len(all) != 0 {
		t.Errorf("of a new vault: %v, %v", all, err)
	}
	for _, name := range []string{"gra-1", "fsn-1", "fsn-2"} {
		if err := v.SetNodeState(name, NodeState{ServerID: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Forget("fsn-2"); err != nil {
		t.Fatal(err)
	}
	if all, err := v.Nodes(); err != nil || strings.Join(all, " ") != "fsn-1 gra-1" {
		t.Errorf("%v, %v", all, err)
	}
}

func TestNamesStayInTheFolder(t *testing.T) {
	v := newTestVault(t)
	for _, name := range []string{"", "..", "../x", "a/b", "A", "-a", "a.b", strings.Repeat("a", 64)} {
		if _, err := v.Node(name); err == nil {
			t.Errorf("node %q accepted", name)
		}
		if err := v.Forget(name); err == nil {
			t.Errorf("forget %q accepted", name)
		}
		if _, err := v.Leaf(LeafSpec{Service: name, Node: "fsn-1"}); err == nil {
			t.Errorf("service %q accepted", name)
		}
	}
}

func TestForget(t *testing.T) {
	v := newTestVault(t)
	old, err := v.Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.SetNodeState("fsn-1", NodeState{Sealed: true}); err != nil {
		t.Fatal(err)
	}
	leaf, err := v.Leaf(LeafSpec{Service: "dns", Node: "fsn-1"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing, which is fine
		if err := v.Forget("fsn-1"); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := v.Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	state, err := v.NodeState("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	next, err := v.Leaf(LeafSpec{Service: "dns", Node: "fsn-1"})
	if err != nil {
		t.Fatal(err)
	}
	if old.MachineKey.Equal(fresh.MachineKey) || state.Sealed || string(leaf.CertPEM) == string(next.CertPEM) {
		t.Error("something of the forgotten node is still there")
	}
}

// Two vaults on one folder stand for two processes.
func TestConcurrentNodeAgrees(t *testing.T) {
	v := newTestVault(t)
	vaults := []*Vault{v, reopen(t, v)}
	keys := make([]*NodeKeys, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := vaults[i%2].Node("fsn-1")
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = k
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != nil && !k.MachineKey.Equal(keys[0].MachineKey) {
			t.Fatal("two callers hold different keys of one node")
		}
	}
}

func TestFilesAreEncryptedAndPrivate(t *testing.T) {
	v := newTestVault(t)
	keys, err := v.Node("fsn-1")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(v.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(data), string(keys.MachineKey.Reveal())) || strings.Contains(string(data), "PRIVATE KEY") {
			t.Errorf("%s holds a secret in clear", path)
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newFuzzSealer(tb testing.TB) sealer {
	tb.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		tb.Fatal(err)
	}
	return newSealer(id, []age.Recipient{id.Recipient()})
}
