//go:build e2e

package qemu

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/netns"
)

// TestDedicated is a machine as Robot rents it out: in a network with its gateway inside and no DHCP, two SATA disks,
// host keys that the provider knows. Its disks swap, and one goes missing.
func TestDedicated(t *testing.T) {
	for _, firmware := range []string{"bios", "uefi"} {
		t.Run(firmware, func(t *testing.T) { dedicated(t, firmware, false) })
	}
	t.Run("bare", func(t *testing.T) { dedicated(t, "bios", true) })
}

func dedicated(t *testing.T, firmware string, bare bool) {
	r := newRig(t)
	c := &r.config
	c.Bare = bare
	c.Name, c.Firmware, c.DiskKind, c.RescueName, c.DHCP = "robot-9", firmware, "sata", "rescue-customer-eu", false
	c.Address, c.Net4, c.Gateway4, c.Prefix6 = netip.MustParseAddr("198.19.0.9"), netns.Robot, netns.RobotGateway, netip.MustParsePrefix("2001:db8:2:9::/64")
	m, err := r.b.Create(t.Context(), *c)
	if err != nil {
		t.Fatal(err)
	}
	key, private := newHostKey(t)
	r.flaws.HostKeys, r.flaws.SwapDisks = [][]byte{private}, true
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := r.ssh(m)
	if !bytes.Equal(r.shown.Marshal(), key.Marshal()) {
		t.Errorf("the rescue system shows %s, not the provider's key", ssh.FingerprintSHA256(r.shown))
	}
	out := r.run(s, "hostname; ls /etc/ssh; cat /sys/block/sda/device/wwid /sys/block/sdb/device/wwid; tail -c +5 /sys/block/sda/device/vpd_pg80; echo; ip route; ip addr show eth0; "+
		"ping -c1 -W5 198.19.0.1 >/dev/null && echo gateway answers; ping -c1 -W1 198.19.0.10 >/dev/null; ip neigh; ls -d /sys/firmware/efi /etc/hetzner-build 2>/dev/null; true")
	t.Log(out)
	first, second := m.Serials()[0], m.Serials()[1]
	for _, want := range []string{"rescue-customer-eu\n", "naa." + wwn(second) + "\nnaa." + wwn(first), second, "inet 198.19.0.9/26", "default via 198.19.0.1",
		"gateway answers", "198.19.0.10 dev eth0 lladdr d2:74:7f:6e:37:e3"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(out, "ssh_host_ed25519_key") || strings.Contains(out, "hetzner-build") || strings.Contains(out, "efi") != (firmware == "uefi") {
		t.Error("another key, another provider's mark, or another firmware")
	}
	dhcp := r.run(s, "busybox udhcpc -f -n -q -t 2 -T 1 -i eth0 -s /bin/true 2>&1; true")
	if !strings.Contains(dhcp, "no lease") {
		t.Errorf("dhcp: %s", dhcp)
	}
	r.run(s, "for d in a b; do printf %s $(tail -c +5 /sys/block/sd$d/device/vpd_pg80) | dd of=/dev/sd$d conv=fsync 2>/dev/null; done")
	s.Close()

	r.flaws.SwapDisks, r.flaws.MissingDisks, r.flaws.Late = false, []int{0}, 3*time.Second
	began := time.Now()
	if err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = r.ssh(m)
	defer s.Close()
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("answered after %s", took)
	}
	if got := r.run(s, "ls /sys/block | grep -c ^sd; head -c 15 /dev/sda"); got != "1\n"+second {
		t.Errorf("without disk 0: %q, expected one disk, %s", got, second)
	}

	r.flaws.MissingDisks, r.flaws.Hangs = nil, true
	if err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.await("third boot", m, func() bool { return r.boots.Load() == 3 })
	if !m.Running() {
		t.Error("a machine that hangs has power")
	}
	if err := m.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

func newHostKey(t *testing.T) (ssh.PublicKey, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "rescue")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(block)
}
