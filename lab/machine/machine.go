// Package machine is the seam between a simulated provider and the machines it rents out: QEMU guests that really boot
// (lab/qemu), or scripted ones inside this process (lab/scripted). A provider decides what boots; a machine only asks.
package machine

import (
	"context"
	"net"
	"net/netip"
)

// Config is a machine as it leaves the factory.
type Config struct {
	Name  string // unique among all machines of the lab and fit for a file name: a cloud server's id, robot-321
	ID    string // the provider's own, as faults may name it; "" is Name
	Label string // what people call it

	Address  netip.Addr
	Net4     netip.Prefix // what is on the link; zero: nothing, the address is a /32
	Gateway4 netip.Addr   // inside Net4, or off-link
	DHCP     bool         // the network answers DHCP; without it a machine has to know
	Prefix6  netip.Prefix // the machine's own /64; it uses ::1 of it, its gateway is fe80::1
	MAC      net.HardwareAddr

	Firmware string // bios | uefi
	CPUs     int
	MemoryMB int
	DiskGB   int
	Disks    int    // 1 or 2
	DiskKind string // nvme | sata; "" is nvme. SATA disks are sda, sdb and have a WWN besides their serial
	// Bare gives it the devices of a real machine, AHCI and an Intel NIC, which Debian's cloud kernel can't drive.
	Bare bool
	// RescueName is the host name of the rescue system; "" is Hetzner's.
	RescueName string

	// NextBoot is asked at every start (power-on, reset, the guest's own reboot), from the machine's goroutine.
	NextBoot func() Boot
	// Stopped is told when the guest powered itself off.
	Stopped func()
}

// Machine is one rented computer. Methods are safe for concurrent use and return once the act is begun, not when a
// system is up. Power acts on a machine already in that state do nothing.
type Machine interface {
	PowerOn(ctx context.Context) error
	PowerOff(ctx context.Context) error // the plug is pulled
	Shutdown(ctx context.Context) error // ACPI button; the guest may ignore it
	Reset(ctx context.Context) error    // power cut and on again: asks NextBoot
	Running() bool
	Serials() []string // of its disks, in order
	Console() string   // path of the console log, "" if none
	// Dial connects to a TCP port of the machine, as the world outside reaches it.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	Delete(ctx context.Context) error
}

// Backend makes machines. Reattach finds one that a former lab process left running or stopped, by Config.Name.
type Backend interface {
	Create(ctx context.Context, c Config) (Machine, error)
	Reattach(ctx context.Context, c Config) (Machine, bool, error)
	Kind() string // "qemu tcg", "qemu kvm", "scripted"
}
