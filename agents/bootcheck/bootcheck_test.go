package bootcheck

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"popfleet/agents/bootchain"
	"popfleet/agents/disk/disktest"
	"popfleet/agents/fat/fattest"
	"popfleet/agents/hostkey"
	"popfleet/playbooks/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAWholeNodePasses(t *testing.T) {
	for disks := 1; disks <= 2; disks++ {
		w := newWorld(t, disks)
		b := w.check(spec.BootCheckRequest{Node: "fsn-1", InitramfsHostKey: w.host.Authorized(), AuthorizedKeys: []string{adminKey}, Key: []byte(luksKey)})
		for _, c := range b.Checks {
			if !c.OK || c.Warn || c.Why == "" {
				t.Errorf("%d disks: %s: %+v", disks, c.Name, c)
			}
			t.Logf("%-16s %s", c.Name, c.Why)
		}
		if !b.OK() || b.Kernel != version || b.Running == version || b.Node != "fsn-1" || b.BootID != "b00t" || b.Manifest == "" || len(b.Checks) != len(checks()) {
			t.Errorf("%+v", b)
		}
		if b := w.check(spec.BootCheckRequest{}); !b.OK() {
			t.Errorf("without anything to compare with: %+v", b.Failed())
		}
	}
}

// TestWhatKeepsANodeDown breaks one thing at a time: the check must name it, and nothing that is whole.
func TestWhatKeepsANodeDown(t *testing.T) {
	edit := func(path, old, new string) func(*world) {
		return func(w *world) {
			b, err := os.ReadFile(w.path(path))
			if err != nil || !bytes.Contains(b, []byte(old)) {
				w.t.Fatalf("%s has no %q: %v", path, old, err)
			}
			w.put(path, strings.Replace(string(b), old, new, 1))
		}
	}
	remove := func(path string) func(*world) {
		return func(w *world) {
			if err := os.RemoveAll(w.path(path)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	without := func(file string) func(*world) {
		return func(w *world) { delete(w.generic, file); w.initrd() }
	}
	flip := func(path string, at int64) func(*world) {
		return func(w *world) {
			f, err := os.OpenFile(w.path(path), os.O_RDWR, 0)
			if err != nil {
				w.t.Fatal(err)
			}
			b := make([]byte, 1)
			_, err = f.ReadAt(b, at)
			b[0] ^= 0x5a
			_, err2 := f.WriteAt(b, at)
			if err := errors.Join(err, err2, f.Close()); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	node := func(change func(*bootchain.Node)) func(*world) {
		return func(w *world) {
			n := bootchain.Node{Network: running, AuthorizedKeys: []string{adminKey}, LUKSUUID: luksUUID}
			n.Network.Addresses = slices.Clone(n.Network.Addresses)
			change(&n)
			w.nodePart(n)
		}
	}
	order := func(text string) func(*world) {
		return func(w *world) { w.generic[mirrorOrder] = text; w.initrd() }
	}
	const tree = Initramfs + " " + Drivers + " " + Network + " " + UnlockServer + " " + HostKey + " " + AuthorizedKeys + " " + Peers + " " + Crypttab
	all := spec.BootCheckRequest{AuthorizedKeys: []string{adminKey}, Key: []byte(luksKey)}
	for name, c := range map[string]struct {
		disks int
		spoil func(*world)
		req   func(*spec.BootCheckRequest)
		names string
		why   string
	}{
		"/boot not mounted":        {1, edit("proc/self/mountinfo", "/boot", "/mnt"), nil, BootPartition, "no file system of its own"},
		"another installation":     {1, edit("etc/fleet/node.json", run, "run-2"), nil, BootPartition + " " + BIOSLoader + " " + UEFILoader, "no disk carries"},
		"boot code":                {1, flip("dev/nvme0n1", 5), nil, BIOSLoader, "SER0: the first sector"},
		"core.img on the 2nd disk": {2, flip("dev/nvme1n1", 1<<20+700), nil, BIOSLoader, "SER1: the BIOS boot partition"},
		"efi on the 2nd disk":      {2, func(w *world) { fattest.Write(w.t, w.path("dev/nvme1n1p2"), fattest.FAT16, nil) }, nil, UEFILoader, "SER1: no EFI/BOOT/BOOTX64.EFI"},
		"efi changed": {1, func(w *world) {
			fattest.Write(w.t, w.path("dev/nvme0n1p2"), fattest.FAT16, map[string][]byte{bootchain.EFIFile: []byte("MZ")})
		}, nil, UEFILoader, "is not the one of"},
		"no ESP":                    {1, func(w *world) { w.put("dev/nvme0n1p2", strings.Repeat("\x00", 4096)) }, nil, UEFILoader, "no FAT file system"},
		"loaders of the image gone": {1, remove("usr/lib/fleet/boot"), nil, BIOSLoader + " " + UEFILoader, "boot loaders of the image"},
		"grub.cfg gone":             {1, remove("boot/grub/grub.cfg"), nil, Grub + " " + Kernel + " " + Modules + " " + tree, "grub.cfg"},
		"grub.cfg cut":              {1, edit("boot/grub/grub.cfg", "zst\n}\n", "zst\n"), nil, Grub + " " + Kernel + " " + Modules + " " + tree, "does not end"},
		"missing initrd":            {1, edit("boot/grub/grub.cfg", "initrd.img-"+version, "initrd.img-7"), nil, Grub + " " + tree, "initrd.img-7"},
		"no node part":              {1, edit("boot/grub/grub.cfg", " /fleet-node.cpio.zst", ""), nil, Grub + " " + genericOnly, "does not load"},
		"another root":              {1, edit("boot/grub/grub.cfg", "root=/dev/mapper/fleet-root", "root=/dev/sda1"), nil, Grub, "another root"},
		"no panic":                  {1, edit("boot/grub/grub.cfg", "panic=60", ""), nil, Grub, "panic"},
		"kernel cut":                {1, func(w *world) { os.Truncate(w.path("boot/vmlinuz-"+version), 3000) }, nil, Kernel, "cut: 3000 of"},
		"kernel is another":         {1, func(w *world) { w.put("boot/vmlinuz-"+version, string(bzImage("5.10"))) }, nil, Kernel, "5.10"},
		"kernel is none":            {1, func(w *world) { w.put("boot/vmlinuz-"+version, strings.Repeat("x", 4096)) }, nil, Kernel, "no kernel image"},
		"initrd cut":                {1, func(w *world) { os.Truncate(w.path("boot/initrd.img-"+version), 9000) }, nil, tree, "does not unpack"},
		"node part spoilt":          {1, flip("boot/fleet-node.cpio.zst", 60), nil, tree, "fleet-node.cpio.zst"},
		"no init":                   {1, without("init"), nil, Initramfs, "/init"},
		"no disk driver":            {1, without("usr/lib/modules/" + version + "/kernel/nvme.ko"), nil, Drivers, "lacks nvme,"},
		"a driver's dependency":     {1, without("usr/lib/modules/" + version + "/kernel/nvme-core.ko"), nil, Drivers, "lacks nvme_core"},
		"no network driver":         {1, without("usr/lib/modules/" + version + "/kernel/virtio_net.ko"), nil, Drivers, "virtio_net"},
		"no raid1":                  {2, without("usr/lib/modules/" + version + "/kernel/raid1.ko"), nil, Drivers, "raid1"},
		"no mdadm":                  {2, without("usr/sbin/mdadm"), nil, MirrorStart, "no mdadm"},
		"no blkid":                  {2, without("usr/sbin/blkid"), nil, MirrorStart, "no blkid"},
		"no sleep":                  {2, without("usr/bin/sleep"), nil, MirrorStart, "no sleep"},
		"no fleet-mirror":           {2, without("scripts/local-top/fleet-mirror"), nil, MirrorStart, "no scripts/local-top/fleet-mirror"},
		"one disk needs none":       {1, without("scripts/local-top/fleet-mirror"), nil, "", ""},
		"fleet-mirror not started":  {2, order("/scripts/local-top/cryptroot \"$@\"\n"), nil, MirrorStart, "does not start fleet-mirror"},
		"fleet-mirror too late":     {2, order("/scripts/local-top/cryptroot \"$@\"\n/scripts/local-top/fleet-mirror \"$@\"\n"), nil, MirrorStart, "after cryptroot"},
		"another card":              {1, node(func(n *bootchain.Node) { n.Network.MAC = "52:54:00:00:00:99" }), nil, Network, "52:54:00:00:00:99"},
		"another address":           {1, node(func(n *bootchain.Node) { n.Network.Addresses[0] = "198.18.0.99/32" }), nil, Network, "198.18.0.99"},
		"another gateway":           {1, node(func(n *bootchain.Node) { n.Network.Gateway4 = "172.31.1.9" }), nil, Network, "172.31.1.9"},
		"the system's card":         {1, edit("etc/systemd/network/10-fleet.network", "00:01", "00:02"), nil, Network, "10-fleet.network"},
		"no dropbear":               {1, without("usr/sbin/dropbear"), nil, UnlockServer, "sbin/dropbear"},
		"dropbear without libc":     {1, without("usr/lib/x86_64-linux-gnu/libc.so.6"), nil, UnlockServer, "libc.so.6"},
		"no forced command":         {1, without("usr/bin/fleet-door"), nil, UnlockServer, "lacks /bin/fleet-door"},
		"unlock script not started": {1, func(w *world) { w.generic["scripts/init-premount/ORDER"] = "#"; w.initrd() }, nil, UnlockServer, "ORDER"},
		"wrong host key":            {1, func(w *world) { otherKey().Save(w.path(hostkey.InitramfsFile)) }, nil, HostKey, "the node's own copy is"},
		"not the pinned host key":   {1, nothing, func(r *spec.BootCheckRequest) { r.InitramfsHostKey = adminKey }, HostKey, "is pinned"},
		"no authorized key of ours": {1, nothing, func(r *spec.BootCheckRequest) { r.AuthorizedKeys = []string{otherKey().Authorized()} }, AuthorizedKeys, "may not hand over"},
		"crypttab of another":       {1, node(func(n *bootchain.Node) { n.LUKSUUID = "dead-beef" }), nil, Crypttab, "dead-beef"},
		"header damaged":            {1, flip("dev/nvme0n1p4", 5000), nil, LUKSHeader, "first copy"},
		"header lost":               {1, func(w *world) { w.put("dev/nvme0n1p4", strings.Repeat("\x00", 1<<20)) }, nil, Crypttab + " " + LUKSHeader + " " + Tables, "no LUKS2 header"},
		"header of another node":    {1, func(w *world) { w.put("dev/nvme0n1p4", string(disktest.LUKS2(luksUUID, "fleet/fsn-9", 7))) }, nil, LUKSHeader, "fleet/fsn-9"},
		"header on one member":      {2, flip("dev/nvme1n1p4", 8192+5000), nil, LUKSHeader, "member nvme1n1p4"},
		"no slot":                   {1, func(w *world) { w.slots = nil }, nil, KeySlot, "no key slot left"},
		"key opens nothing":         {1, nothing, func(r *spec.BootCheckRequest) { r.Key = []byte("wrong") }, KeySlot, "opens none"},
		"no modules":                {1, remove("lib/modules/" + version + "/modules.dep"), nil, Modules, "has no modules"},
		"wrong crypttab":            {1, edit("etc/crypttab", luksUUID, "dead-beef"), nil, Tables, "/etc/crypttab"},
		"fstab names nothing":       {1, edit("etc/fstab", "tmpfs /run/fleet tmpfs nodev", "UUID=12 /data ext4 defaults"), nil, Tables, "UUID=12 does not exist"},
		"fstab without /boot":       {1, edit("etc/fstab", "/boot", "/b"), nil, Tables, "no line for /boot"},
		"fstab by kernel name":      {1, edit("etc/fstab", "tmpfs /run/fleet tmpfs nodev", "/dev/sda1 /data ext4 nofail"), nil, Tables, "another disk's"},
		"/boot full":                {1, func(w *world) { w.free = 1000 }, nil, Space, "0.0 MB free"},
		"/boot being rebuilt": {2, func(w *world) {
			w.put("sys/block/md126/md/dev-nvme1n1p3/state", "spare")
			w.put("sys/block/md126/md/sync_action", "recover")
		}, nil, Mirrors, "being written anew"},
		"stale copy of /boot": {2, func(w *world) { w.put("sys/block/md126/md/dev-nvme1n1p3/state", "faulty") }, nil, Mirrors, "nvme1n1p3 left the mirror"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.disks)
			c.spoil(w)
			req := all
			if c.req != nil {
				c.req(&req)
			}
			b := w.check(req)
			want := strings.Fields(c.names)
			slices.Sort(want)
			if names, why := failures(b); !slices.Equal(names, want) || !strings.Contains(why, c.why) {
				t.Errorf("failed %v, want %v\n%s want %q", names, want, why, c.why)
			}
		})
	}
}

// genericOnly is what lacks when the per-node part is not loaded.
const genericOnly = Network + " " + HostKey + " " + AuthorizedKeys + " " + Crypttab

// TestJudgeHostKey: what to do depends on who has the pinned key.
func TestJudgeHostKey(t *testing.T) {
	pin := otherKey().Authorized()
	p := fingerprint(pin)
	for _, c := range []struct {
		shown, kept, pin string
		ok               bool
		do               string
	}{
		{p, p, pin, true, ""}, {p, p, "", true, ""}, {"x", "x", "", true, ""},
		{"x", p, pin, false, doNodePart}, {"x", "x", pin, false, doSeal}, {p, "x", pin, false, doSeal}, {"x", "y", pin, false, doSeal},
		{"x", p, "", false, "which one is pinned"},
	} {
		if got := judgeHostKey(c.shown, c.kept, c.pin); got.OK != c.ok || !strings.Contains(got.Do, c.do) || !strings.Contains(got.Why, c.shown) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

func nothing(*world) {}

func otherKey() hostkey.Key {
	return hostkey.Key{Private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))}
}

// TestADegradedMirrorIsNamed: it boots, so it is no failure, but nobody should reboot without knowing it.
func TestADegradedMirrorIsNamed(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"root member failed": func(w *world) { w.put("sys/block/md127/md/dev-nvme1n1p4/state", "faulty") },
		"disk gone": func(w *world) {
			for _, p := range []string{"sys/block/nvme1n1", "dev/nvme1n1", "dev/nvme1n1p3", "sys/block/md126/md/dev-nvme1n1p3", "sys/block/md127/md/dev-nvme1n1p4"} {
				os.RemoveAll(w.path(p))
			}
		},
		"rebuilding": func(w *world) {
			w.put("sys/block/md127/md/dev-nvme1n1p4/state", "spare")
			w.put("sys/block/md127/md/sync_action", "recover")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			spoil(w)
			b := w.check(spec.BootCheckRequest{})
			i := slices.IndexFunc(b.Checks, func(p spec.BootProof) bool { return p.Name == Mirrors })
			if !b.OK() || !b.Checks[i].Warn || !strings.Contains(b.Checks[i].Why, "1 of 2") || b.Checks[i].Do == "" {
				t.Errorf("%+v, failed %+v", b.Checks[i], b.Failed())
			}
		})
	}
}

func TestAnotherNodeIsNotChecked(t *testing.T) {
	w := newWorld(t, 1)
	var typed *spec.Error
	if _, err := w.checker().Check(t.Context(), spec.BootCheckRequest{Node: "fsn-2"}); !errors.As(err, &typed) || typed.Code != spec.CodeWrongNode {
		t.Errorf("%v", err)
	}
}

// TestManifest: it changes with what boots, and with nothing else.
func TestManifest(t *testing.T) {
	w := newWorld(t, 2)
	manifest := func() spec.BootManifest {
		m, err := w.checker().Manifest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := manifest()
	var paths []string
	for _, f := range first.Files {
		paths = append(paths, f.Path)
	}
	for _, want := range []string{"boot/grub/grub.cfg", "boot/fleet-node.cpio.zst", "boot/initrd.img-" + version, "boot/vmlinuz-" + version,
		"disk SER0/mbr", "disk SER1/bios-boot", "disk SER1/esp/EFI/BOOT/BOOTX64.EFI"} {
		if !slices.Contains(paths, want) {
			t.Errorf("%s is not in it: %q", want, paths)
		}
	}
	w.put("sys/block/md126/md/dev-nvme1n1p3/state", "faulty")
	os.Chtimes(w.path("boot/grub/grub.cfg"), w.checker().now(), w.checker().now())
	w.put("dev/md127", string(disktest.LUKS2(luksUUID, "fleet/fsn-1", 8)))
	if again := manifest(); again.Digest != first.Digest {
		t.Error("it changed with the state of a mirror, a time or a key slot")
	}
	w.put("boot/grub/extra.cfg", "set extra=init=/bin/sh\n")
	second := manifest()
	if second.Digest == first.Digest {
		t.Error("a file more in /boot was not seen")
	}
	f, err := os.OpenFile(w.path("dev/nvme1n1"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("evil"), 1<<20+900<<10) // behind core.img, in its partition
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if manifest().Digest == second.Digest {
		t.Error("a change in the BIOS boot partition of the second disk was not seen")
	}
}

func FuzzFstab(f *testing.F) {
	f.Add("LABEL=fleet-boot /boot ext4 nofail 0 0\n")
	f.Fuzz(func(t *testing.T, s string) { _, _ = parseFstab(s) })
}

func FuzzKernelVersion(f *testing.F) {
	f.Add(bzImage(version))
	path := f.TempDir() + "/k"
	f.Fuzz(func(t *testing.T, b []byte) {
		if os.WriteFile(path, b, 0o600) == nil {
			_, _ = kernelVersion(path)
		}
	})
}
