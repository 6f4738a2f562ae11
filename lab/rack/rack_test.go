package rack

import (
	"net/netip"
	"testing"

	"popfleet/lab/machine"
	"popfleet/lab/netns"
	"popfleet/lab/ovh"
)

// TestNothingIsTwice: names, addresses and MACs of all machines there can be, ordered ones too.
func TestNothingIsTwice(t *testing.T) {
	var all []machine.Config
	h := Hardware{Firmware: Mixed}
	for _, m := range append(Robot(Most, h), RobotStock(h)...) {
		all = append(all, m.Config)
		if !netns.Robot.Contains(m.Config.Address) || m.Config.Address == netns.RobotGateway || m.Config.DHCP {
			t.Errorf("server %d: %s in %s, DHCP %v", m.Number, m.Config.Address, netns.Robot, m.Config.DHCP)
		}
	}
	servers := OVH(Most, h)
	for n := 1; n <= 100; n++ {
		servers = append(servers, OVHDelivery(h)(ovh.Delivery{N: n, Datacenter: "gra"}))
	}
	for _, s := range servers {
		all = append(all, s.Machine)
		if a := s.Machine.Address; !netns.OVH.Contains(a) || a == netns.OVHGateway {
			t.Errorf("server %s: %s", s.ServiceName, a)
		}
	}
	macs, addrs, nets := map[string]bool{}, map[netip.Addr]bool{}, map[netip.Prefix]bool{}
	for _, c := range all {
		macs[c.MAC.String()], addrs[c.Address], nets[c.Prefix6] = true, true, true
	}
	if len(macs) != len(all) || len(addrs) != len(all) || len(nets) != len(all) {
		t.Errorf("%d machines have %d MACs, %d addresses, %d networks", len(all), len(macs), len(addrs), len(nets))
	}
}

func TestHardware(t *testing.T) {
	usual, mixed := Hardware{}, Hardware{Firmware: Mixed, Disks: 1}
	for _, c := range []struct {
		got            machine.Config
		firmware, kind string
		disks          int
	}{
		{Robot(1, usual)[0].Config, BIOS, "sata", 2},
		{OVH(1, usual)[0].Machine, UEFI, "", 2},
		{Robot(2, mixed)[1].Config, UEFI, "sata", 1},
		{OVH(2, mixed)[0].Machine, BIOS, "", 1},
	} {
		if c.got.Firmware != c.firmware || c.got.DiskKind != c.kind || c.got.Disks != c.disks {
			t.Errorf("%s: %s, %q, %d disks, want %v", c.got.Address, c.got.Firmware, c.got.DiskKind, c.got.Disks, c)
		}
	}
	if a := OVH(1, usual)[0].Machine; a.Prefix6.String() != "2001:db8:3:1::/64" || a.Address.String() != "198.19.1.2" {
		t.Errorf("%s, %s", a.Address, a.Prefix6)
	}
}
