package rescue

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// TestArchiveIsReadByCPIO checks the format with the tool that everyone else reads it with.
func TestArchiveIsReadByCPIO(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	var a archive
	a.dir("bin")
	a.file("bin/tool", 0o755, []byte("seven b"))
	a.file("empty", 0o600, nil)
	data := a.bytes()
	if len(data)%4 != 0 {
		t.Errorf("%d bytes: another archive can't follow", len(data))
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "--extract", "--quiet", "--make-directories")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "bin/tool"))
	if err != nil || string(got) != "seven b" {
		t.Errorf("%q, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(dir, "bin/tool"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "empty")); err != nil {
		t.Error(err)
	}
}

func TestArchiveFields(t *testing.T) {
	var a archive
	a.char("dev/console", 5, 1)
	head := a.bytes()[:110]
	field := func(i int) uint64 {
		n, err := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if string(head[:6]) != "070701" || field(1) != modeChar|0o600 || field(9) != 5 || field(10) != 1 || field(11) != 12 {
		t.Errorf("%s", head)
	}
}

func TestBootData(t *testing.T) {
	b := BootData{MAC: net.HardwareAddr{0x96, 0, 0, 0, 0, 1}, Address4: netip.MustParsePrefix("198.18.0.7/32"),
		Gateway4: netip.MustParseAddr("172.31.1.1"), AuthorizedKeys: []string{"ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"}}
	want := "MAC=96:00:00:00:00:01\nADDRESS4=198.18.0.7/32\nGATEWAY4=172.31.1.1\n"
	if got := b.network(); got != want {
		t.Errorf("%q, expected %q", got, want)
	}
	b.Prefix6, b.Gateway6 = netip.MustParsePrefix("2001:db8:1:7::/64"), netip.MustParseAddr("fe80::1")
	if got := b.network(); got != want+"ADDRESS6=2001:db8:1:7::1/64\nGATEWAY6=fe80::1\n" {
		t.Errorf("%q", got)
	}
	b.HostKeys, b.Hostname = [][]byte{[]byte("first"), []byte("second")}, "rescue-customer-eu"
	for _, part := range []string{"ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n", "lab/host_key_1\x00", "second", "rescue-customer-eu\n"} {
		if !bytes.Contains(b.CPIO(), []byte(part)) {
			t.Errorf("no %q in the archive", part)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	dep := "kernel/virtio.ko: kernel/virtio_ring.ko\nkernel/virtio_ring.ko:\nkernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko kernel/virtio.ko kernel/virtio_ring.ko\nkernel/net/net_failover.ko: kernel/net/failover.ko\nkernel/net/failover.ko:\n"
	order, err := loadOrder(dep, []string{"virtio", "virtio_net", "built_in"})
	want := []string{"kernel/virtio_ring.ko", "kernel/virtio.ko", "kernel/net/failover.ko", "kernel/net/net_failover.ko", "kernel/net/virtio_net.ko"}
	if err != nil || !slices.Equal(order, want) {
		t.Errorf("%q, %v", order, err)
	}
	if _, err := loadOrder("rubbish\n", nil); err == nil {
		t.Error("rubbish was accepted")
	}
}

func TestOverlayAndTree(t *testing.T) {
	root := t.TempDir()
	src := fstest.MapFS{"etc/ssh/config": {Data: []byte("x")}, "etc/hostname": {Data: []byte("rescue\n")}}
	if err := overlay(src, root); err != nil {
		t.Fatal(err)
	}
	if size, err := treeBytes(root); err != nil || size != 7*4096 { // five entries, two of them with a block of content
		t.Errorf("%d bytes, %v", size, err)
	}
	if err := emptyDir(filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(root + "/etc/*"); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
}

// TestSystemLooksLikeAProviders holds what installers recognise a rescue system by, and that no host key is shipped.
func TestSystemLooksLikeAProviders(t *testing.T) {
	hostname, err := files.ReadFile("files/root/etc/hostname")
	if err != nil || strings.TrimSpace(string(hostname)) != "rescue" {
		t.Errorf("hostname %q, %v", hostname, err)
	}
	if _, err := files.ReadFile("files/root/etc/hetzner-build"); err != nil {
		t.Error(err)
	}
	cloud, bare := Options{}, Options{Bare: true}
	if first := cloud.digest(); len(first) != 64 || cloud.digest() != first || bare.digest() == first {
		t.Error("digest is not stable, or the same for another kernel")
	}
	if keys, _ := files.ReadDir("files/root/etc/ssh"); len(keys) != 1 {
		t.Errorf("files in /etc/ssh: %v", keys)
	}
}

func TestFindAndLoad(t *testing.T) {
	cache := t.TempDir()
	if _, ok, err := Find(Options{CacheDir: cache}); ok || err != nil {
		t.Fatalf("found in an empty cache: %v", err)
	}
	dir, err := Options{CacheDir: cache}.folder()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Rescue{Digest: Options{}.digest(), KernelRelease: "6.1"}).save(dir); err != nil {
		t.Fatal(err)
	}
	r, err := Ensure(t.Context(), Options{CacheDir: cache})
	if err != nil || r.Kernel != filepath.Join(dir, "vmlinuz") || r.KernelRelease != "6.1" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Find(Options{CacheDir: cache}); err == nil || !strings.Contains(err.Error(), "remove") {
		t.Errorf("a broken cache gave %v", err)
	}
}
