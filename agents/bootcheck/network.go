package bootcheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"popfleet/agents/bootchain"
	"popfleet/playbooks/spec"
)

// network compares where the initramfs will answer, and the system after it, with where this node answers now.
func network(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	data, err := n.part(bootchain.NetConfFile)
	if err != nil {
		return failed(doNodePart, "%v", err)
	}
	next, err := bootchain.ParseNetConf(data)
	if err != nil {
		return failed(doNodePart, "%s: %v", bootchain.NetConfFile, err)
	}
	const do = "set it in /etc/fleet/initramfs.json; then run `fleet-agent keep-boot`"
	running, err := n.network()
	if err != nil {
		return failed("", "the running system's network: %v", err)
	}
	if err := reaches(next, running); err != nil {
		return failed(do, "in the initramfs: %v", err)
	}
	const unit = "/etc/systemd/network/10-fleet.network"
	if mac := unitMAC(readString(n.path(unit))); !strings.EqualFold(mac, running.MAC) {
		return failed("write the card's MAC into "+unit, "%s is for a card %q, this machine's is %s", unit, mac, running.MAC)
	}
	if len(next.Addresses) == 0 {
		return passed("%s, address by DHCP", next.MAC)
	}
	return passed("%s, %s", next.MAC, strings.Join(next.Addresses, " "))
}

func reaches(next, running spec.Network) error {
	if !strings.EqualFold(next.MAC, running.MAC) {
		return fmt.Errorf("card %s is waited for, this machine's is %s", next.MAC, running.MAC)
	}
	if len(next.Addresses) == 0 {
		return nil
	}
	for _, a := range next.Addresses {
		if !slices.ContainsFunc(running.Addresses, func(r string) bool { return sameAddress(a, r) }) {
			return fmt.Errorf("it would take the address %s; this node answers at %s", a, strings.Join(running.Addresses, " "))
		}
	}
	for _, g := range [][2]string{{next.Gateway4, running.Gateway4}, {next.Gateway6, running.Gateway6}} {
		if g[1] != "" && g[0] != g[1] {
			return fmt.Errorf("its gateway is %q, this node's is %s", g[0], g[1])
		}
	}
	return nil
}

func sameAddress(a, b string) bool {
	pa, erra := netip.ParsePrefix(a)
	pb, errb := netip.ParsePrefix(b)
	return erra == nil && errb == nil && pa.Addr() == pb.Addr()
}

func unitMAC(unit string) string {
	for line := range strings.Lines(unit) {
		if mac, ok := strings.CutPrefix(strings.TrimSpace(line), "MACAddress="); ok {
			return mac
		}
	}
	return ""
}
