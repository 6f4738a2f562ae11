package install

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
	"popfleet/agents/disk"
	"popfleet/agents/facts"
)

// configure writes what makes this node this node. Every file is written whole, so running it again is harmless.
func (j *job) configure(context.Context) error {
	ca, _, _, _, err := ssh.ParseAuthorizedKey([]byte(j.spec.UserCA))
	if err != nil {
		return fmt.Errorf("user_ca: %w", err)
	}
	id, err := json.Marshal(facts.Identity{Fleet: j.spec.Fleet, Node: j.spec.Node, Run: j.spec.Run})
	if err != nil {
		return err
	}
	crypttab, err := bootchain.Crypttab(j.luksUUID)
	if err != nil {
		return err
	}
	network, err := j.networkUnit()
	if err != nil {
		return err
	}
	files := []struct {
		path string
		perm os.FileMode
		data string
	}{
		{facts.IdentityFile, 0o644, string(id) + "\n"},
		{"/etc/hostname", 0o644, j.spec.Node + "\n"},
		{"/etc/hosts", 0o644, "127.0.0.1 localhost\n127.0.1.1 " + j.spec.Node + "\n::1 localhost ip6-localhost\n"},
		{"/etc/crypttab", 0o644, string(crypttab)},
		{"/etc/fstab", 0o644, j.fstab()},
		{"/etc/systemd/network/10-fleet.network", 0o644, network},
		{"/etc/resolv.conf", 0o644, j.resolvConf()},
		{"/etc/ssh/fleet_user_ca.pub", 0o644, string(ssh.MarshalAuthorizedKey(ca))},
	}
	for _, f := range files {
		path := filepath.Join(j.root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.data), f.perm); err != nil {
			return err
		}
	}
	return j.machineID()
}

// machineID gives the node its own, once. With an empty one systemd would treat the next boot as the first of all and
// apply its presets over what the image set up.
func (j *job) machineID() error {
	path := filepath.Join(j.root, "etc/machine-id")
	if have, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(have))) == 32 {
		return nil
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(hex.EncodeToString(id[:])+"\n"), 0o444)
}

// fstab mounts /boot by label: it is the same whether it is a partition or an array. A /boot that comes late or never
// must not keep the node from coming up (systemd would end in an emergency shell that nobody can enter); what needs it
// asks for it, and no reboot is done without it. The ESPs are not mounted: nothing
// on a node writes to them. /run/fleet is a mount of its own because the initramfs leaves /run with noexec, and the agent
// that an operator brings along runs from there.
func (j *job) fstab() string {
	var b strings.Builder
	options := "noatime,errors=remount-ro"
	if j.spec.Emulated {
		options += ",noinit_itable" // filling the inode tables takes a real machine seconds, an emulated one minutes
	}
	fmt.Fprintf(&b, "/dev/mapper/%s / ext4 %s 0 1\n", mapping, options)
	fmt.Fprintf(&b, "LABEL=%s /boot ext4 noatime,nodev,nosuid,noexec,nofail,x-systemd.device-timeout=10min 0 0\n", disk.NameBoot)
	b.WriteString("tmpfs /run/fleet tmpfs nodev,nosuid,mode=0700,size=128m 0 0\n")
	return b.String()
}

// networkUnit is the systemd-networkd configuration: the interface by MAC, static addresses and gateways that need not
// be on-link; DHCP only where the rescue system had no address to learn from.
func (j *job) networkUnit() (string, error) {
	n := j.network
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nMACAddress=%s\n\n[Network]\n", n.MAC)
	for _, a := range n.Addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return "", fmt.Errorf("network: %w", err)
		}
		fmt.Fprintf(&b, "Address=%s\n", p)
	}
	b.WriteString("IPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n")
	if len(n.Addresses) == 0 {
		b.WriteString("DHCP=ipv4\n")
	}
	for _, d := range n.DNS {
		a, err := netip.ParseAddr(d)
		if err != nil {
			return "", fmt.Errorf("network: DNS server: %w", err)
		}
		fmt.Fprintf(&b, "DNS=%s\n", a)
	}
	for _, g := range []string{n.Gateway4, n.Gateway6} {
		if g == "" {
			continue
		}
		a, err := netip.ParseAddr(g)
		if err != nil {
			return "", fmt.Errorf("network: gateway: %w", err)
		}
		fmt.Fprintf(&b, "\n[Route]\nGateway=%s\nGatewayOnLink=yes\n", a)
	}
	return b.String(), nil
}

func (j *job) resolvConf() string {
	var b strings.Builder
	for _, d := range j.network.DNS {
		if a, err := netip.ParseAddr(d); err == nil {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	return b.String()
}
