package rescue

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// BootData is what differs from one boot to the next: the machine's network and who may log in.
type BootData struct {
	MAC            net.HardwareAddr
	Address4       netip.Prefix // a /32 where nothing is on the link
	Gateway4       netip.Addr   // inside Address4's network, or off-link
	Prefix6        netip.Prefix // the machine takes ::1 of it; invalid: no IPv6
	Gateway6       netip.Addr
	AuthorizedKeys []string
	HostKeys       [][]byte // private keys in OpenSSH's PEM form; none: the system makes one
	Hostname       string   // "" is Hetzner's; any other takes /etc/hetzner-build away
}

// CPIO is an archive to append to the initrd. Keys are data in a file of their own; everything the init script reads
// as shell is formatted from typed values.
func (b BootData) CPIO() []byte {
	var a archive
	a.dir("lab")
	a.file("lab/network", 0o600, []byte(b.network()))
	a.file("lab/authorized_keys", 0o600, []byte(strings.Join(b.AuthorizedKeys, "\n")+"\n"))
	for i, key := range b.HostKeys {
		a.file(fmt.Sprintf("lab/host_key_%d", i), 0o600, key)
	}
	if b.Hostname != "" {
		a.file("lab/hostname", 0o600, []byte(b.Hostname+"\n"))
	}
	return a.bytes()
}

func (b BootData) network() string {
	var s strings.Builder
	fmt.Fprintf(&s, "MAC=%s\nADDRESS4=%s\nGATEWAY4=%s\n", b.MAC, b.Address4, b.Gateway4)
	if b.Prefix6.IsValid() {
		fmt.Fprintf(&s, "ADDRESS6=%s/%d\nGATEWAY6=%s\n", b.Prefix6.Masked().Addr().Next(), b.Prefix6.Bits(), b.Gateway6)
	}
	return s.String()
}
