package hcloud

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

// Gateway4 is every machine's IPv4 gateway: off-link, as at the provider.
func Gateway4() netip.Addr { return netip.AddrFrom4([4]byte{172, 31, 1, 1}) }

// effect does to the machine what the action is about. It can be repeated: a restarted lab does so.
func (c *Cloud) effect(ctx context.Context, a *action) error {
	s := c.serverOf(a)
	if s == nil {
		return nil
	}
	if a.Command == "create_server" {
		return c.build(ctx, s)
	}
	m := c.machineOf(s)
	if m == nil {
		return nil
	}
	switch a.Command {
	case "start_server":
		return m.PowerOn(ctx)
	case "stop_server":
		return m.PowerOff(ctx)
	case "shutdown_server":
		return m.Shutdown(ctx)
	case "reboot_server":
		c.change(func() { s.Restart = true })
		return m.Shutdown(ctx)
	case "reset_server":
		if _, ok := c.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: c.names(s)}, faults.ResetIgnored); ok {
			return nil
		}
		return m.Reset(ctx)
	case "delete_server":
		return m.Delete(ctx)
	}
	return nil
}

// settle writes the action's outcome into the books; c.mu is held.
func (c *Cloud) settle(a *action) {
	var s *server
	for _, r := range a.Resources {
		if r.Type == "server" {
			s = c.state.Servers[r.ID]
		}
	}
	if s == nil {
		return
	}
	switch a.Command {
	case "create_server":
		if s.Status = "off"; s.StartAfter {
			s.Status = "starting"
		}
	case "start_server", "stop_server", "reset_server":
		s.Status = powerStatus(s.machine)
	case "enable_rescue":
		var on rescue
		if json.Unmarshal([]byte(a.Argument), &on) == nil { // written by enableRescue
			on.Expires = time.Now().Add(c.opt.RescueExpires)
			s.Rescue = &on
		}
	case "disable_rescue":
		s.Rescue = nil
	case "delete_server":
		c.forget(s)
	}
}

// undone puts the books back after an action that ended in error; c.mu is held.
func (c *Cloud) undone(a *action) {
	for _, r := range a.Resources {
		s := c.state.Servers[r.ID]
		if r.Type != "server" || s == nil {
			continue
		}
		if a.Command == "create_server" {
			c.forget(s) // the provider takes a server back that could not be made
			continue
		}
		s.Status = powerStatus(s.machine)
	}
}

func powerStatus(m machine.Machine) string {
	if m != nil && m.Running() {
		return "running"
	}
	return "off"
}

func (c *Cloud) serverOf(a *action) *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range a.Resources {
		if r.Type == "server" {
			return c.state.Servers[r.ID]
		}
	}
	return nil
}

func (c *Cloud) machineOf(s *server) machine.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.machine
}

func (c *Cloud) names(s *server) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info(s).Names()
}

func (c *Cloud) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.save()
}

// build makes the machine, or finds the one a former lab process left.
func (c *Cloud) build(ctx context.Context, s *server) error {
	cfg, err := c.config(s)
	if err != nil {
		return err
	}
	m, found, err := c.opt.Backend.Reattach(ctx, cfg)
	if err == nil && !found {
		m, err = c.opt.Backend.Create(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("machine %s (%s): %w", cfg.Name, cfg.Label, err)
	}
	c.change(func() { s.machine = m })
	return nil
}

func (c *Cloud) config(s *server) (machine.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := serverType(s.Type)
	if !ok {
		return machine.Config{}, fmt.Errorf("server type %q is unknown", s.Type)
	}
	mac, err := net.ParseMAC(s.MAC)
	if err != nil {
		return machine.Config{}, fmt.Errorf("server %d: %w", s.ID, err)
	}
	v4, v6 := c.addresses(s)
	h, id := c.opt.Hardware(t), s.ID
	return machine.Config{
		Name: strconv.FormatInt(id, 10), Label: s.Name, Address: v4, Prefix6: v6, Gateway4: Gateway4(), DHCP: true, MAC: mac,
		Firmware: h.Firmware, CPUs: h.CPUs, MemoryMB: h.MemoryMB, DiskGB: h.DiskGB, Disks: h.Disks,
		NextBoot: func() machine.Boot { return c.nextBoot(id) },
		Stopped:  func() { c.stopped(id) },
	}, nil
}

// nextBoot decides what a starting machine boots, and what is wrong with it.
func (c *Cloud) nextBoot(id int64) machine.Boot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state.Servers[id]
	if s == nil {
		return machine.Boot{}
	}
	return c.chosenBoot(s).Struck(c.opt.Faults, c.info(s).Names())
}

// chosenBoot is rescue if it is enabled, which uses it up; c.mu is held.
func (c *Cloud) chosenBoot(s *server) machine.Boot {
	disk := machine.Boot{AuthorizedKeys: s.SSHKeys}
	if !s.rescueOn(time.Now()) {
		s.Rescue = nil
		return disk
	}
	if _, ok := c.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: c.info(s).Names()}, faults.RescueIgnored); ok {
		return disk // rescue_enabled stays true: seen in the field, facts B2
	}
	b := machine.Boot{Rescue: true, AuthorizedKeys: s.Rescue.Keys, RootPassword: s.Rescue.Password}
	s.Rescue = nil
	c.save()
	return b
}

// stopped is told by a machine whose guest powered itself off.
func (c *Cloud) stopped(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state.Servers[id]
	if s == nil || c.closed {
		return
	}
	restart, m := s.Restart, s.machine
	s.Restart = false
	if !restart || m == nil {
		s.Status = "off"
		c.save()
		return
	}
	c.spawn(func() {
		err := m.PowerOn(c.life)
		c.change(func() { s.Status = powerStatus(m) })
		if err != nil {
			c.opt.Log.Error("start after reboot", "server", id, "error", err)
		}
	})
}

// reattach takes machines back after a restart of the lab and goes on with actions that were running.
func (c *Cloud) reattach(ctx context.Context) error {
	for _, s := range c.state.servers() {
		if s.Status == "initializing" {
			continue // its create action builds it
		}
		if err := c.build(ctx, s); err != nil {
			return err
		}
		c.change(func() { s.Status = powerStatus(s.machine) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range byID(c.state.Actions) {
		if a.Status == "running" {
			c.spawn(func() { c.run(a) })
		}
	}
	return nil
}
