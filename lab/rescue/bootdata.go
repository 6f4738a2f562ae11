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
	Address4       netip.Addr   // reached as /32
	Gateway4       netip.Addr   // off-link
	Prefix6        netip.Prefix // the machine takes ::1 of it; invalid: no IPv6
	Gateway6       netip.Addr
	AuthorizedKeys []string
}

// CPIO is an archive to append to the initrd. Keys are data in a file of their own; everything the init script reads
// as shell is formatted from typed values.
func (b BootData) CPIO() []byte {
	var a archive
	a.dir("lab")
	a.file("lab/network", 0o600, []byte(b.network()))
	a.file("lab/authorized_keys", 0o600, []byte(strings.Join(b.AuthorizedKeys, "\n")+"\n"))
	return a.bytes()
}

func (b BootData) network() string {
	var s strings.Builder
	fmt.Fprintf(&s, "MAC=%s\nADDRESS4=%s/32\nGATEWAY4=%s\n", b.MAC, b.Address4, b.Gateway4)
	if b.Prefix6.IsValid() {
		fmt.Fprintf(&s, "ADDRESS6=%s/%d\nGATEWAY6=%s\n", b.Prefix6.Masked().Addr().Next(), b.Prefix6.Bits(), b.Gateway6)
	}
	return s.String()
}
