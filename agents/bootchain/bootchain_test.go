package bootchain

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"popfleet/playbooks/spec"
)

const pubKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk24VWnAO0gqMNcOb5kRjqslTg57MSWEI/pNJmgogpW fleet"

func nodePart() NodePart {
	return NodePart{
		HostKey: ed25519.NewKeyFromSeed(make([]byte, 32)), AuthorizedKeys: []string{pubKey}, LUKSUUID: "2b3c33b7-3103-4e7c-957b-85c1c3f7dcf4",
		Network: spec.Network{MAC: "52:54:00:00:00:01", Addresses: []string{"198.18.0.10/32", "2001:db8:1:2::1/64"}, Gateway4: "172.31.1.1", Gateway6: "fe80::1"},
	}
}

func TestNodePartIsReadByCpio(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio on this machine")
	}
	part, err := nodePart().Build()
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(bytes.NewReader(part))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "-idm", "--quiet", "--no-absolute-filenames")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(raw)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for path, want := range map[string]string{
		"etc/fleet/net.conf":        "MAC=52:54:00:00:00:01\nADDRESSES=\"198.18.0.10/32 2001:db8:1:2::1/64\"\nGATEWAY4=172.31.1.1\nGATEWAY6=fe80::1\n",
		"etc/fleet/authorized_keys": "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-pty " + strings.TrimSuffix(pubKey, " fleet") + "\n",
		"cryptroot/crypttab":        "fleet-root UUID=2b3c33b7-3103-4e7c-957b-85c1c3f7dcf4 none luks,discard,initramfs,no-read-workqueue,no-write-workqueue\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	key, err := os.Stat(filepath.Join(dir, "etc/dropbear/dropbear_ed25519_host_key"))
	if err != nil || key.Size() != 4+11+4+64 || key.Mode().Perm() != 0o600 {
		t.Errorf("host key: %v, %v", key, err)
	}
	again, err := nodePart().Build()
	if err != nil || !bytes.Equal(part, again) {
		t.Errorf("the same node part twice is not the same bytes (%v)", err)
	}
}

// TestNodePartRefuses: what goes into a shell in the initramfs is never copied from a request as it is.
func TestNodePartRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*NodePart){
		"mac":       func(p *NodePart) { p.Network.MAC = "$(reboot)" },
		"address":   func(p *NodePart) { p.Network.Addresses = []string{"198.18.0.10/32; reboot"} },
		"gateway":   func(p *NodePart) { p.Network.Gateway4 = "`reboot`" },
		"zone":      func(p *NodePart) { p.Network.Gateway6 = "fe80::1%$(reboot)" },
		"no key":    func(p *NodePart) { p.AuthorizedKeys = nil },
		"bad key":   func(p *NodePart) { p.AuthorizedKeys = []string{"hello"} },
		"luks uuid": func(p *NodePart) { p.LUKSUUID = "x none\nevil" },
	} {
		p := nodePart()
		spoil(&p)
		if _, err := p.Build(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

type memDisk []byte

func (m memDisk) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m[off:]), nil }
func (m memDisk) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

func TestWriteBIOS(t *testing.T) {
	l := Loaders{Boot: bytes.Repeat([]byte{0xb0}, 512), Core: bytes.Repeat([]byte{0xc0}, 3*512+10), EFI: []byte("e")}
	d := memDisk(bytes.Repeat([]byte{0x11}, 1<<20))
	if err := l.WriteBIOS(d, 34, 1<<19); err != nil {
		t.Fatal(err)
	}
	if got := binary.LittleEndian.Uint64(d[0x5c:]); got != 34 {
		t.Errorf("boot.img looks for core.img in sector %d", got)
	}
	if got := binary.LittleEndian.Uint64(d[34*512+500:]); got != 35 {
		t.Errorf("core.img looks for its rest in sector %d", got)
	}
	if d[0] != 0xb0 || d[0x1b7] != 0xb0 || d[0x1b8] != 0x11 || d[509] != 0x11 || d[510] != 0x55 {
		t.Error("the first sector lost its partition table, or has no boot code")
	}
	if err := l.VerifyBIOS(d, 34, 1<<19); err != nil {
		t.Errorf("what was written is not found again: %v", err)
	}
	for _, at := range []int{0, 34 * 512, 36*512 + 5} {
		d[at] ^= 1
		if err := l.VerifyBIOS(d, 34, 1<<19); err == nil {
			t.Errorf("byte %d was changed and nobody saw it", at)
		}
		d[at] ^= 1
	}
	if err := l.WriteBIOS(d, 34, 512); err == nil {
		t.Error("core.img was written beyond its partition")
	}
}

func TestCheck(t *testing.T) {
	const cfg = "menuentry \"a\" {\n  linux /vmlinuz-1 root=x\n  initrd /initrd.img-1 /fleet-node.cpio.zst\n}\n"
	for name, c := range map[string]struct {
		spoil func(root string)
		want  string
	}{
		"good":         {func(string) {}, ""},
		"no node part": {func(r string) { os.Remove(filepath.Join(r, NodePartFile)) }, "fleet-node.cpio.zst"},
		"cut initrd":   {func(r string) { os.Truncate(filepath.Join(r, "boot/initrd.img-1"), 100) }, "only 100 bytes"},
		"no kernel":    {func(r string) { os.Remove(filepath.Join(r, "boot/vmlinuz-1")) }, "vmlinuz-1"},
		"no grub.cfg":  {func(r string) { os.Remove(filepath.Join(r, "boot/grub/grub.cfg")) }, "grub.cfg"},
		"node part unset": {func(r string) {
			os.WriteFile(filepath.Join(r, "boot/grub/grub.cfg"), []byte("menuentry \"a\" {\nlinux /vmlinuz-1\ninitrd /initrd.img-1\n}\n"), 0o644)
		}, "does not load"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			os.MkdirAll(filepath.Join(root, "boot/grub"), 0o755)
			for f, size := range map[string]int64{"vmlinuz-1": 3 << 20, "initrd.img-1": 3 << 20, "fleet-node.cpio.zst": 400} {
				os.WriteFile(filepath.Join(root, "boot", f), nil, 0o644)
				os.Truncate(filepath.Join(root, "boot", f), size)
			}
			os.WriteFile(filepath.Join(root, "boot/grub/grub.cfg"), []byte(cfg), 0o644)
			c.spoil(root)
			err := Check(root)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
