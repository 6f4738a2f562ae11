// Package rack furnishes the dedicated machines that a lab has from the start, and those that an order delivers: numbers,
// names, addresses, disks and firmware, the same at every start of the lab. Both the daemon (lab) and tests
// (lab/inprocess) rent out what it describes; it makes nothing itself.
//
// Robot's machines have two SATA disks, BIOS, and an address in a network with its gateway inside; OVH's have two NVMe
// disks, UEFI, and an address alone with an off-link gateway. So a PoP of both meets everything once.
package rack

import (
	"fmt"
	"net"
	"net/netip"

	"popfleet/lab/machine"
	"popfleet/lab/netns"
	"popfleet/lab/ovh"
	"popfleet/lab/robot"
)

// Firmwares a lab can be told to use.
const (
	BIOS  = "bios"
	UEFI  = "uefi"
	Mixed = "mixed" // in turn
)

// Most machines of one provider: the rest of its addresses is for orders.
const Most = 40

// Hardware is what the machines are built of. Zero values are each provider's own.
type Hardware struct {
	Firmware               string // bios, uefi, mixed; "" is the provider's
	Disks                  int    // 1 or 2; 0 is 2
	CPUs, MemoryMB, DiskGB int
	Bare                   bool // devices as in real machines: see machine.Config
}

// Numbers and places of the first machines.
const (
	firstRobot = 321
	firstOVH   = 1001
	robotDC    = "FSN1-DC14"
	ovhDC      = "gra3"
)

// Robot are n servers that an account at Hetzner Robot has, without names, as they are delivered.
func Robot(n int, h Hardware) []robot.Machine {
	var out []robot.Machine
	for i := range n {
		out = append(out, robot.Machine{Number: firstRobot + i, Product: "EX44", DC: robotDC, Config: robotConfig(i, h)})
	}
	return out
}

// RobotStock is what orders are delivered from: one server of the standard range and one of the market.
func RobotStock(h Hardware) []robot.Machine {
	standard := robot.Machine{Number: firstRobot + Most, Product: "EX44", DC: robotDC, Config: robotConfig(Most, h)}
	market := robot.Machine{Number: firstRobot + Most + 1, Product: "SB38", DC: robotDC, Offer: 2811, Cents: 3800, Config: robotConfig(Most+1, h)}
	return []robot.Machine{standard, market}
}

func robotConfig(i int, h Hardware) machine.Config {
	c := h.config(i, BIOS)
	c.DiskKind = "sata"
	c.Address, c.Net4, c.Gateway4 = nth(netns.Robot.Masked().Addr(), 2+i), netns.Robot, netns.RobotGateway
	c.Prefix6 = subnet(netns.Robot6, 1+i)
	c.MAC = net.HardwareAddr{0x96, 0x19, 0, 0, 0, byte(1 + i)}
	return c
}

// OVH are n servers that an account at OVH has.
func OVH(n int, h Hardware) []ovh.Rented {
	var out []ovh.Rented
	for i := range n {
		out = append(out, rented(i, ovhDC, "Rise-1", h))
	}
	return out
}

// OVHDelivery describes the server of an order.
func OVHDelivery(h Hardware) func(ovh.Delivery) ovh.Rented {
	return func(d ovh.Delivery) ovh.Rented { return rented(Most+d.N, d.Datacenter+"1", d.Plan, h) }
}

func rented(i int, datacenter, plan string, h Hardware) ovh.Rented {
	c := h.config(i, UEFI)
	c.Name = fmt.Sprintf("ovh-%d", firstOVH+i)
	c.Address, c.Gateway4, c.DHCP = nth(netns.OVH.Masked().Addr(), 2+i), netns.OVHGateway, true
	c.Prefix6 = subnet(netns.OVH6, 1+i)
	c.MAC = net.HardwareAddr{0x96, 0x19, 1, 0, 0, byte(1 + i)}
	c.RescueName = "rescue-customer-eu"
	return ovh.Rented{ServiceName: fmt.Sprintf("ns%d.ip-198-19-1.eu", firstOVH+i), Machine: c, Datacenter: datacenter, Range: plan}
}

func (h Hardware) config(i int, usual string) machine.Config {
	c := machine.Config{Firmware: h.Firmware, CPUs: h.CPUs, MemoryMB: h.MemoryMB, DiskGB: h.DiskGB, Disks: h.Disks, Bare: h.Bare}
	switch c.Firmware {
	case "":
		c.Firmware = usual
	case Mixed:
		c.Firmware = []string{BIOS, UEFI}[i%2]
	}
	if c.Disks == 0 {
		c.Disks = 2
	}
	return c
}

// nth is the address n after a.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	b[3] += byte(n)
	return netip.AddrFrom4(b)
}

// subnet is the n-th /64 of a /48.
func subnet(p netip.Prefix, n int) netip.Prefix {
	b := p.Addr().As16()
	b[6], b[7] = byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}
