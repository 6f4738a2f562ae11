package facts

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"popfleet/playbooks/spec"
)

// Network is how the running system reaches the world: the interface of the default route, its MAC, its global
// addresses and its gateways, which may be off-link.
func (h Host) Network() (spec.Network, error) {
	iface, gw4, err := h.defaultRoute4()
	iface6, gw6, err6 := h.defaultRoute6()
	if err != nil && err6 != nil {
		return spec.Network{}, errors.New("no default route")
	}
	if err != nil {
		iface = iface6
	}
	nic, err := net.InterfaceByName(iface)
	if err != nil {
		return spec.Network{}, fmt.Errorf("interface of the default route: %w", err)
	}
	n := spec.Network{MAC: nic.HardwareAddr.String(), Gateway4: gw4, DNS: h.nameservers()}
	if iface6 == iface {
		n.Gateway6 = gw6
	}
	addrs, err := nic.Addrs()
	if err != nil {
		return spec.Network{}, fmt.Errorf("addresses of %s: %w", iface, err)
	}
	n.Addresses = global(addrs)
	if len(n.Addresses) == 0 {
		return spec.Network{}, fmt.Errorf("interface %s has no global address", iface)
	}
	return n, nil
}

func global(addrs []net.Addr) []string {
	var out []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() && !p.Addr().Is4In6() {
			out = append(out, p.String())
		}
	}
	// IPv4 first, otherwise in the kernel's order
	slices.SortStableFunc(out, func(a, b string) int {
		return boolInt(strings.Contains(a, ":")) - boolInt(strings.Contains(b, ":"))
	})
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// defaultRoute4 reads /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask …, in host byte order.
func (h Host) defaultRoute4() (iface, gateway string, err error) {
	best := -1
	for line := range strings.Lines(h.read("/proc/net/route")) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		metric, err := strconv.Atoi(f[6])
		raw, herr := hex.DecodeString(f[2])
		if err != nil || herr != nil || len(raw) != 4 || (best >= 0 && metric >= best) {
			continue
		}
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], binary.BigEndian.Uint32(raw))
		best, iface, gateway = metric, f[0], netip.AddrFrom4(b).String()
	}
	if best < 0 {
		return "", "", errors.New("no IPv4 default route")
	}
	if gateway == "0.0.0.0" {
		gateway = ""
	}
	return iface, gateway, nil
}

// defaultRoute6 reads /proc/net/ipv6_route: destination, its length, source, its length, next hop, …, interface.
func (h Host) defaultRoute6() (iface, gateway string, err error) {
	for line := range strings.Lines(h.read("/proc/net/ipv6_route")) {
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != "00" || f[9] == "lo" {
			continue
		}
		raw, err := hex.DecodeString(f[4])
		if err != nil || len(raw) != 16 {
			continue
		}
		hop := netip.AddrFrom16([16]byte(raw))
		if f[0] == strings.Repeat("0", 32) && hop.IsValid() && !hop.IsUnspecified() {
			return f[9], hop.String(), nil
		}
	}
	return "", "", errors.New("no IPv6 default route")
}

func (h Host) nameservers() []string {
	b, err := os.ReadFile(h.path("/etc/resolv.conf"))
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && !a.IsLoopback() && a.Zone() == "" {
			out = append(out, a.String())
		}
	}
	return out
}
