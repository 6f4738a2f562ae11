// Package netns makes the network of the lab's machines: a Linux network namespace that has no link to the host at all,
// laid out as a cloud provider's. A machine has its address as a /32 (198.18.0.0/16 is for them) with the off-link
// gateway 172.31.1.1, and ::1 of a /64 of its own behind fe80::1. Machines can't see each other's frames: what one sends
// to another goes through the gateway, which is the namespace itself. The lab's own services live on [Lab].
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

// Addresses of the lab's network. The gateways are Hetzner Cloud's own.
var (
	Gateway4 = netip.MustParseAddr("172.31.1.1")
	Gateway6 = netip.MustParseAddr("fe80::1")
	Lab      = netip.MustParseAddr("198.18.0.1") // of the lab itself; a controller may live there
	Lab6     = netip.MustParseAddr("2001:db8:1::1")
	Machines = netip.MustParsePrefix("198.18.0.0/16")
	Prefix6  = netip.MustParsePrefix("2001:db8:1::/48") // machine N has 2001:db8:1:N::/64
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
	// replace, not add: each line does nothing where it is already done
	batch := strings.NewReplacer("LAB4", Lab.String(), "LAB6", Lab6.String(), "GW4", Gateway4.String(), "GW6", Gateway6.String(),
		"NET4", Machines.String(), "NET6", Prefix6.String(), "BRIDGE", Bridge).Replace(`link set lo up
address replace LAB4/32 dev lo
address replace LAB6/128 dev lo nodad
address replace GW4/32 dev BRIDGE
address replace GW6/64 dev BRIDGE nodad
link set BRIDGE up
route replace NET4 dev BRIDGE
route replace NET6 dev BRIDGE
`)
	if !n.hasLink(ctx, Bridge) {
		batch = fmt.Sprintf("link add %s address %s type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n", Bridge, gatewayMAC) + batch
	}
	return n, ip(ctx, batch, "-n", name, "-batch", "-")
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
	return n.inside(func() error {
		for _, v := range values {
			if err := os.WriteFile("/proc/sys/net/"+v[0], []byte(v[1]), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
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
