// Package netns makes the network of the lab's machines: a Linux network namespace that has no link to the host at all,
// laid out as the providers'. A Hetzner Cloud machine has its address as a /32 of 198.18.0.0/16 with the off-link gateway
// 172.31.1.1; a Robot one is in 198.19.0.0/26 with the gateway inside; an OVH one is a /32 of 198.19.1.0/24 with that
// network's .254 as its off-link gateway. All have ::1 of a /64 of their own behind fe80::1. Machines can't see each
// other's frames, be they neighbours by address: what one sends to another goes through the gateway, which is the
// namespace itself and answers for them (private VLAN, as at the providers). The lab's own services live on [Lab].
//
// Processes of the host reach in by [Namespace.Dial] and [Namespace.Listen], which open the socket inside, and by
// [Namespace.Command]. Nothing else connects the two sides: no route, no veth, no default route inside, so a load test
// in the lab can't leave the machine.
//
// Everything here needs root. Names are the ones of ip-netns(8), so `ip netns exec` works on them too. Errors name the
// command that failed and what it said.
package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultName is the namespace of the one lab that a host usually has.
const DefaultName = "fleet-lab"

// Bridge is the interface inside the namespace that all machines hang on.
const Bridge = "lab0"

// gatewayMAC is fixed: a bridge otherwise takes the lowest of its ports', and the machines' ARP entries would go stale.
const gatewayMAC = "d2:74:7f:6e:37:e3"

// Addresses of the lab's network. The gateways of Hetzner Cloud are its own.
var (
	Gateway4 = netip.MustParseAddr("172.31.1.1")
	Gateway6 = netip.MustParseAddr("fe80::1")
	Lab      = netip.MustParseAddr("198.18.0.1") // of the lab itself; a controller may live there
	Lab6     = netip.MustParseAddr("2001:db8:1::1")
	Machines = netip.MustParsePrefix("198.18.0.0/16")
	Prefix6  = netip.MustParsePrefix("2001:db8:1::/48") // machine N has 2001:db8:1:N::/64

	Robot        = netip.MustParsePrefix("198.19.0.0/26") // what is on a Robot machine's link
	RobotGateway = netip.MustParseAddr("198.19.0.1")
	Robot6       = netip.MustParsePrefix("2001:db8:2::/48")

	OVH        = netip.MustParsePrefix("198.19.1.0/24") // of which a machine has a /32
	OVHGateway = netip.MustParseAddr("198.19.1.254")
	OVH6       = netip.MustParsePrefix("2001:db8:3::/48")
)

// Namespace is a network namespace that exists. Its methods are safe for concurrent use.
type Namespace struct{ name string }

// Create makes the namespace, or completes the one that a former run left.
func Create(ctx context.Context, name string) (*Namespace, error) {
	n := &Namespace{name: name}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("network namespace %s: needs root", name)
	}
	if !Exists(name) {
		if err := ip(ctx, "", "netns", "add", name); err != nil {
			return nil, err
		}
	}
	if err := n.sysctls(); err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", name, err)
	}
	batch := layout()
	if !n.hasLink(ctx, Bridge) {
		batch = fmt.Sprintf("link add %s address %s type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n", Bridge, gatewayMAC) + batch
	}
	if err := ip(ctx, batch, "-n", name, "-batch", "-"); err != nil {
		return nil, err
	}
	// a neighbour by address is asked for by ARP, and its port is isolated: the gateway answers in its place
	return n, n.write("ipv4/conf/"+Bridge+"/proxy_arp_pvlan", "1")
}

// layout is what ip(8) is told: replace, not add, so that each line does nothing where it is already done.
func layout() string {
	var s strings.Builder
	fmt.Fprintf(&s, "link set lo up\naddress replace %s/32 dev lo\naddress replace %s/128 dev lo nodad\n", Lab, Lab6)
	for _, gw := range []string{Gateway4.String() + "/32", netip.PrefixFrom(RobotGateway, Robot.Bits()).String(), OVHGateway.String() + "/32"} {
		fmt.Fprintf(&s, "address replace %s dev %s\n", gw, Bridge)
	}
	fmt.Fprintf(&s, "address replace %s/64 dev %s nodad\nlink set %s up\n", Gateway6, Bridge, Bridge)
	for _, net := range []netip.Prefix{Machines, OVH, Prefix6, Robot6, OVH6} {
		fmt.Fprintf(&s, "route replace %s dev %s\n", net, Bridge)
	}
	return s.String()
}

// Exists says whether there is a namespace of that name.
func Exists(name string) bool {
	_, err := os.Stat(path(name))
	return err == nil
}

// Open returns the namespace of that name, which must exist.
func Open(name string) (*Namespace, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !Exists(name) {
		return nil, fmt.Errorf("no network namespace %s: the lab is not up", name)
	}
	return &Namespace{name: name}, nil
}

// Delete removes the namespace and every interface in it. Processes inside keep it alive, unnamed, until they end: stop
// them first. Deleting what is not there is no error.
func Delete(ctx context.Context, name string) error {
	if !Exists(name) {
		return nil
	}
	err := ip(ctx, "", "netns", "delete", name)
	if err != nil && !Exists(name) {
		return nil // a lab that ends and `fleet-lab down` delete it at the same moment
	}
	return err
}

// Name is the one of ip-netns(8).
func (n *Namespace) Name() string { return n.name }

// AddTap makes a tap device on the bridge for a machine of that address. QEMU opens it by name from inside. The ports
// are isolated from each other, and only the bridge may speak to them.
func (n *Namespace) AddTap(ctx context.Context, tap string) error {
	if n.hasLink(ctx, tap) {
		return nil
	}
	batch := fmt.Sprintf("tuntap add dev %[1]s mode tap\nlink set %[1]s master %[2]s\nlink set %[1]s type bridge_slave isolated on\nlink set %[1]s up\n", tap, Bridge)
	return ip(ctx, batch, "-n", n.name, "-batch", "-")
}

// DeleteTap removes a tap device; one that is not there is no error.
func (n *Namespace) DeleteTap(ctx context.Context, tap string) error {
	if !n.hasLink(ctx, tap) {
		return nil
	}
	return ip(ctx, "", "-n", n.name, "link", "delete", tap)
}

func (n *Namespace) hasLink(ctx context.Context, name string) bool {
	return ip(ctx, "", "-n", n.name, "link", "show", "dev", name) == nil
}

// sysctls make the namespace a router that keeps quiet: machines are never told that they could reach each other
// directly, and their /32 addresses need no proxying.
func (n *Namespace) sysctls() error {
	values := [][2]string{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
	}
	for _, v := range values {
		if err := n.write(v[0], v[1]); err != nil {
			return err
		}
	}
	return nil
}

func (n *Namespace) write(sysctl, value string) error {
	return n.inside(func() error { return os.WriteFile("/proc/sys/net/"+sysctl, []byte(value), 0o644) })
}

func path(name string) string { return filepath.Join("/run/netns", name) }

func checkName(name string) error {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") || len(name) > unix.NAME_MAX {
		return fmt.Errorf("network namespace %q: no fit name", name)
	}
	return nil
}

func ip(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: apt-get install iproute2", err)
	}
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
