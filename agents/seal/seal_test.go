package seal

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/facts"
	"popfleet/agents/hostkey"
	"popfleet/playbooks/spec"
)

// luksDevice plays cryptsetup: a header with key slots. cut > 0 counts down and then fails every call, as a kill would.
type luksDevice struct {
	slots   map[int]string
	kdf     map[int]string
	reloads int
	calls   int
	cut     int
}

var errKilled = errors.New("killed")

func exitCode(code int) error {
	return &command.Error{Err: exec.Command("/bin/sh", "-c", "exit "+strconv.Itoa(code)).Run()}
}

func (d *luksDevice) Run(_ context.Context, c command.Cmd) ([]byte, error) {
	d.calls++
	if d.cut > 0 && d.calls >= d.cut {
		return nil, errKilled
	}
	for _, s := range c.Secrets {
		if strings.Contains(strings.Join(c.Argv, " "), string(s)) {
			panic("a secret is in the arguments")
		}
	}
	if c.Argv[0] == "systemctl" {
		if c.Argv[1] == "reload" {
			d.reloads++
		}
		return nil, nil
	}
	secret := func(i int) string { return string(c.Secrets[i]) }
	slot := -1
	if i := slices.Index(c.Argv, "--key-slot"); i > 0 {
		slot, _ = strconv.Atoi(c.Argv[i+1])
	}
	switch c.Argv[1] {
	case "isLuks", "config":
		return nil, nil
	case "luksDump":
		return d.dump(), nil
	case "open":
		for n, k := range d.slots {
			if k == secret(0) && (slot < 0 || n == slot) {
				return nil, nil
			}
		}
		return nil, exitCode(2)
	case "luksAddKey":
		if _, taken := d.slots[slot]; taken || !d.opens(secret(0)) {
			return nil, exitCode(1)
		}
		d.slots[slot], d.kdf[slot] = secret(1), c.Argv[slices.Index(c.Argv, "--pbkdf")+1]
		return nil, nil
	case "luksKillSlot":
		n, _ := strconv.Atoi(c.Argv[len(c.Argv)-1])
		if !d.opens(secret(0)) {
			return nil, exitCode(2)
		}
		delete(d.slots, n)
		return nil, nil
	case "erase":
		clear(d.slots)
		return nil, nil
	}
	return nil, fmt.Errorf("unexpected %v", c.Argv)
}

func (d *luksDevice) opens(key string) bool {
	for _, k := range d.slots {
		if k == key {
			return true
		}
	}
	return false
}

func (d *luksDevice) dump() []byte {
	out := map[string]map[string]map[string]string{}
	for n := range d.slots {
		out[strconv.Itoa(n)] = map[string]map[string]string{"kdf": {"type": d.kdf[n]}}
	}
	b, _ := json.Marshal(map[string]any{"keyslots": out})
	return b
}

func fresh() *luksDevice {
	return &luksDevice{slots: map[int]string{0: install}, kdf: map[int]string{0: "pbkdf2"}}
}

const install = "the-install-key-of-this-run"

type silent struct{}

func (silent) Emit(spec.Event) {}
func (silent) Fetch(context.Context, []spec.Blob, func(spec.Blob, io.Reader) error) error {
	return errors.New("nothing to fetch")
}

func pemKey(seed byte) []byte {
	k := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32)))
	b, err := ssh.MarshalPrivateKey(k, "")
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(b)
}

func request(node string) json.RawMessage {
	b, _ := json.Marshal(spec.Seal{Version: 1, Node: node, InstallKey: []byte(install), MachineKey: []byte("0123456789abcdef0123456789abcdef"),
		RecoveryKey: []byte("correct-horse-battery"), InitramfsHostKey: pemKey('a'), SystemHostKey: pemKey('b')})
	return b
}

// node is an installed system's root, as far as sealing looks at it.
func node(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put := func(path string, data string, size int64) {
		path = filepath.Join(root, path)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			os.Truncate(path, size)
		}
	}
	put(facts.IdentityFile, `{"fleet":"demo","node":"fsn-1","run":"r1"}`, 0)
	put("boot/grub/grub.cfg", "menuentry \"popfleet 1\" {\n  linux /vmlinuz-1\n  initrd /initrd.img-1 /fleet-node.cpio.zst\n}\n", 0)
	put("boot/vmlinuz-1", "", 3<<20)
	put("boot/initrd.img-1", "", 3<<20)
	pub, _ := ssh.NewPublicKey(ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	n := bootchain.Node{Network: spec.Network{MAC: "52:54:00:00:00:01"}, AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(pub))}, LUKSUUID: "2b3c33b7-3103"}
	if err := n.Save(root); err != nil {
		t.Fatal(err)
	}
	if _, err := hostkey.Ensure(filepath.Join(root, hostkey.SystemFile)); err != nil {
		t.Fatal(err)
	}
	return root
}

func handler(root string, d *luksDevice) Handler {
	return Handler{Host: facts.Host{Root: root}, Run: d, Log: slog.New(slog.DiscardHandler),
		RootDevice: func() (string, error) { return "/dev/x4", nil }}
}

func sealed(t *testing.T, root string, d *luksDevice, result any, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r := result.(spec.Sealed)
	if !slices.Equal(r.Slots, []string{"machine pbkdf2", "recovery argon2id"}) || r.InstallSlot != "destroyed" || len(r.InitramfsSHA) != 64 {
		t.Errorf("result %+v", r)
	}
	if d.opens(install) || len(d.slots) != 2 {
		t.Errorf("slots after sealing: %v", d.slots)
	}
	have, _ := os.ReadFile(filepath.Join(root, hostkey.SystemFile))
	k, err := hostkey.Parse(have)
	want, _ := hostkey.Parse(pemKey('b'))
	if err != nil || !k.Equal(want) {
		t.Errorf("the system's host key is not the vault's: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, facts.SealedFile)); err != nil {
		t.Error(err)
	}
}

func TestSealTwice(t *testing.T) {
	root, d := node(t), fresh()
	r, err := handler(root, d).Seal(t.Context(), request("fsn-1"), silent{})
	sealed(t, root, d, r, err)
	r, err = handler(root, d).Seal(t.Context(), request("fsn-1"), silent{})
	sealed(t, root, d, r, err)
	if d.reloads != 1 {
		t.Errorf("sshd was reloaded %d times", d.reloads)
	}
}

// TestSealCutAnywhere cuts it at every call of a program, then runs it again; the node opens with some known key at
// every moment between.
func TestSealCutAnywhere(t *testing.T) {
	whole := fresh()
	if _, err := handler(node(t), whole).Seal(t.Context(), request("fsn-1"), silent{}); err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut <= whole.calls; cut++ {
		root, d := node(t), fresh()
		d.cut = cut
		if _, err := handler(root, d).Seal(t.Context(), request("fsn-1"), silent{}); err == nil {
			t.Fatalf("cut at %d: no error", cut)
		}
		if !d.opens(install) && !d.opens("0123456789abcdef0123456789abcdef") {
			t.Fatalf("cut at %d: nothing opens the disk", cut)
		}
		d.cut = 0
		r, err := handler(root, d).Seal(t.Context(), request("fsn-1"), silent{})
		sealed(t, root, d, r, err)
	}
	t.Logf("cut at each of %d calls", whole.calls)
}

func TestSealRefuses(t *testing.T) {
	root, d := node(t), fresh()
	var typed *spec.Error
	if _, err := handler(root, d).Seal(t.Context(), request("fsn-2"), silent{}); !errors.As(err, &typed) || typed.Code != spec.CodeWrongNode {
		t.Errorf("another node: %v", err)
	}
	d.slots[0] = "somebody else's"
	if _, err := handler(root, d).Seal(t.Context(), request("fsn-1"), silent{}); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("unknown key: %v", err)
	}
	if len(d.slots) != 1 {
		t.Errorf("slots were touched: %v", d.slots)
	}
}
