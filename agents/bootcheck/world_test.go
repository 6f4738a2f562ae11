package bootcheck

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/disk/disktest"
	"popfleet/agents/facts"
	"popfleet/agents/fat/fattest"
	"popfleet/agents/hostkey"
	"popfleet/agents/initrd/initrdtest"
	"popfleet/playbooks/spec"
)

const (
	version  = "6.1.0-56-amd64"
	luksUUID = "2b3c33b7-3103-4e7c-957b-85c1c3f7dcf4"
	luksKey  = "the machine key"
	adminKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk24VWnAO0gqMNcOb5kRjqslTg57MSWEI/pNJmgogpW fleet"
	run      = "run-1"
)

var running = spec.Network{MAC: "52:54:00:00:00:01", Addresses: []string{"198.18.0.10/32", "2001:db8:1:2::1/64"}, Gateway4: "172.31.1.1", Gateway6: "fe80::1"}

// world is a node made of files: /sys, /dev, /boot and the rest below a folder.
type world struct {
	t       *testing.T
	root    string
	disks   []string // nvme0n1, nvme1n1
	generic map[string]string
	host    hostkey.Key
	free    int64
	slots   []string
	rootDev string
}

func (w *world) path(p string) string { return filepath.Join(w.root, p) }

func (w *world) put(path, data string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(path)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(path), []byte(data), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) link(path, target string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(path)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(w.path(target), w.path(path)); err != nil {
		w.t.Fatal(err)
	}
}

// newWorld is a node that would come back, with one disk or a mirror of two.
func newWorld(t *testing.T, disks int) *world {
	w := &world{t: t, root: t.TempDir(), free: 500 << 20, slots: []string{"pbkdf2", "argon2id"}}
	w.host = hostkey.Key{Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	w.system()
	for i := range disks {
		w.disk(fmt.Sprintf("nvme%dn1", i), fmt.Sprintf("SER%d", i))
	}
	w.rootDev = "/dev/nvme0n1p4"
	boot := "nvme0n1p3"
	w.put("sys/block/nvme0n1/nvme0n1p3/dev", "259:3")
	if disks == 2 {
		w.mirror("md126", 3)
		w.mirror("md127", 4)
		w.rootDev, boot = "/dev/md127", "md126"
	}
	w.put("proc/self/mountinfo", "20 1 253:0 / / rw - ext4 /dev/mapper/fleet-root rw\n30 20 9:126 / /boot rw - ext4 /dev/x rw\n")
	if disks == 2 {
		w.link("sys/dev/block/9:126", "sys/block/"+boot)
	} else {
		w.link("sys/dev/block/9:126", "sys/block/nvme0n1/"+boot)
	}
	w.boot()
	return w
}

func (w *world) system() {
	w.put("etc/fleet/node.json", `{"fleet":"demo","node":"fsn-1","run":"`+run+`"}`)
	w.put("proc/sys/kernel/random/boot_id", "b00t\n")
	w.put("proc/sys/kernel/osrelease", "6.1.0-50-amd64\n")
	w.put("etc/fstab", "/dev/mapper/fleet-root / ext4 noatime 0 1\nLABEL=fleet-boot /boot ext4 nofail 0 0\ntmpfs /run/fleet tmpfs nodev 0 0\n")
	w.put("etc/crypttab", "fleet-root UUID="+luksUUID+" none luks,discard\n")
	w.put("etc/systemd/network/10-fleet.network", "[Match]\nMACAddress=52:54:00:00:00:01\n")
	w.put("dev/mapper/fleet-root", "")
	w.put("dev/disk/by-label/fleet-boot", "")
	w.put("lib/modules/"+version+"/modules.dep", "kernel/drivers/md/dm-crypt.ko: kernel/drivers/md/dm-mod.ko\nkernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko\n")
	w.put("lib/modules/"+version+"/modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/crypto/xts.ko\n")
	w.put("sys/class/net/eth0/address", "52:54:00:00:00:01\n")
	w.link("sys/class/net/eth0/device/driver/module", "sys/module/virtio_net")
	for _, m := range []string{"virtio_net", "nvme"} {
		w.put("sys/module/"+m+"/refcnt", "1")
	}
	w.put("usr/lib/fleet/boot/boot.img", strings.Repeat("b", 512))
	w.put("usr/lib/fleet/boot/core.img", strings.Repeat("c", 2000))
	w.put("usr/lib/fleet/boot/bootx64.efi", strings.Repeat("e", 3000))
	if err := w.host.Save(w.path(hostkey.InitramfsFile)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) disk(name, serial string) {
	w.disks = append(w.disks, name)
	sys := "sys/block/" + name
	w.put(sys+"/size", "131072\n")
	w.put(sys+"/device/serial", serial)
	w.link(sys+"/device/driver/module", "sys/module/nvme")
	w.put(sys+"/"+name+"p1/start", "2048\n")
	w.put(sys+"/"+name+"p1/size", "2048\n")
	w.put("dev/"+name, string(disktest.GPT(run, "fleet-esp", "fleet-boot", "fleet-root")))
	if err := os.Truncate(w.path("dev/"+name), 64<<20); err != nil {
		w.t.Fatal(err)
	}
	l, err := bootchain.ReadLoaders(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(w.path("dev/"+name), os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(l.WriteBIOS(f, 2048, 1<<20), f.Close()); err != nil {
		w.t.Fatal(err)
	}
	fattest.Write(w.t, w.path("dev/"+name+"p2"), fattest.FAT16, map[string][]byte{bootchain.EFIFile: l.EFI})
	w.put("dev/"+name+"p3", strings.Repeat("\x00", 8192))
	w.put("dev/"+name+"p4", string(disktest.LUKS2(luksUUID, "fleet/fsn-1", 7)))
}

// mirror makes an array of the n-th partitions, whose data begin 8 KiB into its members.
func (w *world) mirror(name string, n int) {
	md := "sys/block/" + name + "/md"
	w.put(md+"/raid_disks", "2\n")
	w.put(md+"/sync_action", "idle\n")
	for _, d := range w.disks {
		part := fmt.Sprintf("%sp%d", d, n)
		w.put(md+"/dev-"+part+"/state", "in_sync\n")
		w.put(md+"/dev-"+part+"/offset", "16\n")
		member := append(make([]byte, 8192), disktest.LUKS2(luksUUID, "fleet/fsn-1", 7)...)
		copy(member[4096:], "\xfc\x4e\x2b\xa9")
		w.put("dev/"+part, string(member))
	}
	w.put("dev/"+name, string(disktest.LUKS2(luksUUID, "fleet/fsn-1", 7)))
}

const grubCfg = `set default=0
set fallback=1
menuentry "popfleet %[1]s" {
  linux /vmlinuz-%[1]s root=/dev/mapper/fleet-root ro panic=60
  initrd /initrd.img-%[1]s /fleet-node.cpio.zst
}
`

// program is a real dynamic executable; the libraries it wants are put beside it.
func program(t *testing.T) string {
	b, err := os.ReadFile("/bin/true")
	if err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) {
		t.Skip("no ELF /bin/true on this machine")
	}
	return string(b)
}

func (w *world) boot() {
	elf := program(w.t)
	w.generic = map[string]string{
		"init": "#!/bin/sh", "sbin": "→ usr/sbin", "bin": "→ usr/bin", "lib": "→ usr/lib",
		"usr/sbin/dropbear": elf, "usr/sbin/cryptsetup": elf, "usr/sbin/mdadm": elf, "usr/bin/busybox": elf,
		"usr/bin/cryptroot-unlock": "#!/bin/sh", "usr/lib/cryptsetup/askpass": elf, "usr/lib/x86_64-linux-gnu/libc.so.6": "libc",
		"scripts/local-top/cryptroot": "#!/bin/sh", "scripts/init-premount/fleet-unlock": "#!/bin/sh\n\texec /sbin/dropbear -Fs -p 2222 -c /bin/fleet-door\n", "usr/bin/fleet-door": "#!/bin/sh", "etc/fleet/net.sh": "fleet_net() { :; }",
		"scripts/local-top/fleet-mirror": "#!/bin/sh", "scripts/local-top/ORDER": "/scripts/local-top/fleet-mirror \"$@\"\n/scripts/local-top/cryptroot \"$@\"\n",
		"usr/sbin/blkid": elf, "usr/bin/sh": elf, "usr/bin/sed": elf, "usr/bin/cat": elf, "usr/bin/sleep": elf, "etc/fleet/shares.sh": "take_share() { :; }",
		"scripts/init-premount/ORDER": `/scripts/init-premount/fleet-unlock "$@"`, "cryptroot/crypttab": "fleet-root LABEL=fleet-luks none luks\n",
	}
	for _, m := range []string{"nvme", "nvme-core", "virtio_net", "dm-crypt", "dm-mod", "raid1"} {
		w.generic["usr/lib/modules/"+version+"/kernel/"+m+".ko"] = "module"
	}
	w.initrd()
	w.put("boot/vmlinuz-"+version, string(bzImage(version)))
	w.put("boot/grub/grub.cfg", fmt.Sprintf(grubCfg, version))
	node := bootchain.Node{Network: running, AuthorizedKeys: []string{adminKey}, LUKSUUID: luksUUID}
	w.nodePart(node)
}

func (w *world) initrd() {
	w.put("boot/initrd.img-"+version, initrdtest.Files(w.t, w.generic))
}

func (w *world) nodePart(n bootchain.Node) {
	w.t.Helper()
	if err := n.Save(w.root); err != nil {
		w.t.Fatal(err)
	}
	if _, err := bootchain.WriteNodePart(w.root, w.host.Private); err != nil {
		w.t.Fatal(err)
	}
}

// bzImage is a kernel's header and as many bytes as it says.
func bzImage(version string) []byte {
	const setup, rest = 4, 64
	b := make([]byte, (setup+1)*512+rest*16)
	b[0x1f1] = setup
	binary.LittleEndian.PutUint32(b[0x1f4:], rest)
	b[0x1fe], b[0x1ff] = 0x55, 0xaa
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x200)
	copy(b[0x400:], version+" (builder@host) #1\x00")
	return b
}

// Run stands in for cryptsetup and systemctl.
func (w *world) Run(_ context.Context, c command.Cmd) ([]byte, error) {
	switch line := strings.Join(c.Argv, " "); {
	case strings.HasPrefix(line, "systemctl start boot.mount"), strings.Contains(line, "isLuks"):
		return nil, nil
	case strings.Contains(line, "luksDump"):
		var slots []string
		for i, kdf := range w.slots {
			slots = append(slots, fmt.Sprintf(`"%d":{"kdf":{"type":%q}}`, i+1, kdf))
		}
		return fmt.Appendf(nil, `{"keyslots":{%s}}`, strings.Join(slots, ",")), nil
	case strings.Contains(line, "--test-passphrase"):
		if string(c.Secrets[0]) == luksKey {
			return nil, nil
		}
		return command.System{}.Run(context.Background(), command.Cmd{Argv: []string{"sh", "-c", "exit 2"}})
	}
	return nil, fmt.Errorf("unexpected command %q", c.Argv)
}

func (w *world) checker() Checker {
	return Checker{
		Host: facts.Host{Root: w.root}, Run: w,
		Network:    func() (spec.Network, error) { return running, nil },
		RootDevice: func() (string, error) { return w.rootDev, nil },
		Free:       func(string) (int64, error) { return w.free, nil },
		Now:        func() time.Time { return time.UnixMilli(1700000000000) },
	}
}

func (w *world) check(req spec.BootCheckRequest) spec.BootCheck {
	w.t.Helper()
	b, err := w.checker().Check(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// failures are the names of the checks that did not pass, and what they said.
func failures(b spec.BootCheck) (names []string, why string) {
	said := map[string]string{}
	for _, f := range b.Failed() {
		said[f.Name] = f.Why
		why += f.Why + "\n"
	}
	return slices.Sorted(maps.Keys(said)), why
}
