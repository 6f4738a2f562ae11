package ovh

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh/shop"
)

// open takes the servers of the options into the books and makes or finds all machines.
func (o *OVH) open(ctx context.Context) error {
	o.mu.Lock()
	for _, r := range o.opt.Machines {
		if err := o.adopt(r); err != nil {
			o.mu.Unlock()
			return err
		}
	}
	o.known()
	all := o.state.servers()
	o.save()
	o.mu.Unlock()
	for _, s := range all {
		if err := o.build(ctx, s); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.resume()
	o.state.Shop.Resume()
	o.spawn(o.watch)
	return nil
}

// adopt enters a server of the options, or finds the one in the books that it is.
func (o *OVH) adopt(r Rented) error {
	if r.ServiceName == "" || r.Datacenter == "" || !r.Machine.Address.Is4() {
		return fmt.Errorf("ovh simulator: server %q: a service name, a datacenter and an IPv4 address are needed", r.ServiceName)
	}
	s := o.state.named(r.ServiceName)
	if s != nil && s.rented.ServiceName != "" {
		return fmt.Errorf("ovh simulator: server %s is given twice", r.ServiceName)
	}
	if s == nil {
		s = o.enter(r)
	}
	s.rented = named(r)
	return nil
}

// enter adds a new server: it starts from its disk and is monitored, as servers are delivered.
func (o *OVH) enter(r Rented) *server {
	s := &server{
		ID: o.state.nextID(), Service: r.ServiceName, Created: o.clock(), OS: "none_64", rented: named(r),
		Choices: Choices{BootID: ptr(o.kernelID(kernelDisk)), Monitoring: true, State: "ok"},
	}
	o.state.Servers = append(o.state.Servers, s)
	return s
}

// named fills in by what names the machine goes.
func named(r Rented) Rented {
	c := &r.Machine
	c.ID = r.ServiceName
	if c.Name == "" {
		c.Name = r.ServiceName
	}
	if c.Label == "" {
		c.Label = r.ServiceName
	}
	if c.MAC == nil {
		b := c.Address.As4()
		c.MAC = net.HardwareAddr{0x52, 0x54, b[0], b[1], b[2], b[3]}
	}
	if r.BootMode == "" {
		r.BootMode = "legacy"
		if c.Firmware == "uefi" {
			r.BootMode = "uefi"
		}
	}
	return r
}

// known describes the delivered servers again, and forgets those that the lab is no longer given.
func (o *OVH) known() {
	var kept []*server
	for _, s := range o.state.Servers {
		if s.Order != nil {
			s.rented = named(o.opt.Deliver(*s.Order))
		}
		if s.rented.ServiceName == "" {
			o.opt.Log.Warn("server is no longer given to the lab", "server", s.Service)
			continue
		}
		kept = append(kept, s)
	}
	o.state.Servers = kept
}

// build finds the machine a former lab left, or makes it and switches it on.
func (o *OVH) build(ctx context.Context, s *server) error {
	cfg, service := s.rented.Machine, s.Service
	cfg.NextBoot = func() machine.Boot { return o.nextBoot(service) }
	cfg.Stopped = func() {} // a server that switched itself off stays off, and powerState says so
	m, found, err := o.opt.Backend.Reattach(ctx, cfg)
	if err == nil && !found {
		m, err = o.opt.Backend.Create(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("machine %s (%s): %w", cfg.Name, cfg.Label, err)
	}
	o.change(func() { s.machine = m })
	if !found {
		return m.PowerOn(ctx)
	}
	return nil
}

// nextBoot decides what a starting machine boots. The choice stays: rescue again and again, until it is set back.
func (o *OVH) nextBoot(service string) machine.Boot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.state.named(service)
	if s == nil {
		return machine.Boot{}
	}
	return o.chosen(s).Struck(o.opt.Faults, s.names())
}

// chosen is what the server was told to boot.
//
// A boot script is kept and shown, but there is no iPXE in the lab: the machine starts as if the script had ended in an
// exit to the next boot device. A shell and a Windows answer nobody.
func (o *OVH) chosen(s *server) machine.Boot {
	b := o.booting(s)
	switch {
	case b.Type == "harddisk" || s.BootScript != nil:
		return machine.Boot{}
	case b.Kernel == kernelOff:
		o.switchOff(s)
		return machine.Boot{Hangs: true}
	case b.Kernel != kernelRescue:
		return machine.Boot{Hangs: true}
	}
	if _, ok := o.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: s.names()}, faults.RescueIgnored); ok {
		return machine.Boot{} // the bootId stays
	}
	return o.rescue(s)
}

// rescue is the provider's rescue system. It makes host keys of its own, which nobody publishes. Without a key, root's
// password is sent by e-mail.
func (o *OVH) rescue(s *server) machine.Boot {
	out := machine.Boot{Rescue: true, RootPassword: rand.Text()}
	if key := text(s.RescueKey); key != "" {
		out.AuthorizedKeys = []string{key}
		return out
	}
	to := text(s.RescueMail)
	if to == "" {
		to = accountMail
	}
	o.state.mail(o.clock(), to, "Rescue mode of "+s.Service, "root password: "+out.RootPassword)
	o.save()
	return out
}

// switchOff is for a machine that asks for its next boot when that is being off. It waits until the machine has begun.
func (o *OVH) switchOff(s *server) {
	m := s.machine
	if m == nil {
		return
	}
	o.spawn(func() {
		if err := m.PowerOff(o.life); err != nil {
			o.opt.Log.Error("switch machine off", "server", s.Service, "error", err)
		}
	})
}

func (o *OVH) hardReboot(ctx context.Context, s *server, m machine.Machine) error {
	if _, ok := o.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: s.names()}, faults.ResetIgnored); ok {
		return nil
	}
	o.mu.Lock()
	off := o.booting(s).Kernel == kernelOff && s.BootScript == nil
	o.mu.Unlock()
	if off {
		return m.PowerOff(ctx)
	}
	return m.Reset(ctx)
}

// Delivery is an order of one server that has been paid.
type Delivery struct {
	N          int    `json:"n"` // of the account's deliveries, from 1
	Plan       string `json:"plan"`
	Datacenter string `json:"datacenter"` // as ordered: gra, rbx
	Line       int64  `json:"line"`       // of which order's detail
}

// handOver enters an ordered server in the books, once, and builds its machine.
func (o *OVH) handOver(ctx context.Context, sold shop.Sold) (string, error) {
	var s *server
	o.change(func() { s = o.entered(sold) })
	return s.Service, o.build(ctx, s)
}

// entered finds or enters the server of an order; o.mu is held.
func (o *OVH) entered(sold shop.Sold) *server {
	n := 1
	for _, s := range o.state.Servers {
		if s.Order == nil {
			continue
		}
		if s.Order.Line == sold.Line {
			return s
		}
		n = max(n, s.Order.N+1)
	}
	d := Delivery{N: n, Plan: sold.Plan, Datacenter: sold.Datacenter, Line: sold.Line}
	s := o.enter(o.opt.Deliver(d))
	s.Order = &d
	return s
}

// shopping is what the shop needs of the account.
func (o *OVH) shopping() shop.Deps {
	return shop.Deps{
		Now: o.clock, NextID: o.state.nextID, Change: o.change, HandOver: o.handOver,
		Spawn:       func(f func(ctx context.Context)) { o.spawn(func() { f(o.life) }) },
		PayTime:     func() time.Duration { return o.opt.Delay(Payment) },
		DeliverTime: func() time.Duration { return o.opt.Delay(Deliver) },
		Log:         o.opt.Log,
	}
}

// delivered is the machine of an order where Options.Deliver does not say: two disks, UEFI, in the lab's OVH network.
func delivered(d Delivery) Rented {
	host := 100 + d.N%150
	return Rented{
		ServiceName: fmt.Sprintf("ns%d.ip-198-19-1.%s", 3000+d.N, "eu"), Datacenter: d.Datacenter + "1", Range: d.Plan,
		Machine: machine.Config{
			Name:    fmt.Sprintf("ovh-%d", 3000+d.N),
			Address: netip.AddrFrom4([4]byte{198, 19, 1, byte(host)}), Net4: netip.MustParsePrefix("198.19.1.0/24"),
			Gateway4: netip.AddrFrom4([4]byte{198, 19, 1, 254}), DHCP: true,
			Prefix6:  netip.MustParsePrefix(fmt.Sprintf("2001:db8:3:%x::/64", host)),
			Firmware: "uefi", CPUs: 1, MemoryMB: 1024, DiskGB: 4, Disks: 2,
		},
	}
}
