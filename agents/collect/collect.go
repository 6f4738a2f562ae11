// Package collect makes a node's report: the host by /proc and /sys, the services by their control sockets, the pairs
// by the replicator, the disks by package smart, the mirrors by package mirror. It keeps no history and sends nothing. What cannot be learnt is left
// out or null, never zero and never taken from an earlier report; a service that does not answer in time is unhealthy,
// with that as the reason.
package collect

import (
	"context"
	"fmt"
	"time"

	"popfleet/agents"
	"popfleet/agents/facts"
)

// Service is a service of this node and its control socket.
type Service struct {
	Name    string `json:"name"`
	Control string `json:"control"`
}

// Disks says what is known of the disks now, without waiting.
type Disks interface{ Disks() []agents.Disk }

// Mirrors says how the md arrays are now, without waiting for a disk.
type Mirrors interface{ Mirrors() []agents.Mirror }

// Collector makes reports of one node. It may be used from one goroutine at a time.
type Collector struct {
	node     string
	bootID   string
	machine  machine
	services []asked
	disks    Disks
	mirrors  Mirrors
	now      func() time.Time
}

// New looks up what stays the same until the next boot. root is "" outside of tests.
func New(node, root string, services []Service, disks Disks, mirrors Mirrors) (*Collector, error) {
	boot, err := facts.Host{Root: root}.BootID()
	if err != nil {
		return nil, err
	}
	c := &Collector{node: node, bootID: boot, machine: machine{root}, disks: disks, mirrors: mirrors, now: time.Now}
	for _, s := range services {
		c.services = append(c.services, newAsked(s))
	}
	return c, nil
}

// BootID is the boot all reports of this collector belong to.
func (c *Collector) BootID() string { return c.bootID }

// Uptime is the time since the boot.
func (c *Collector) Uptime() time.Duration {
	return time.Duration(c.machine.firstNumber("/proc/uptime") * float64(time.Second))
}

// servicePatience bounds the wait for all services together: a report must not be late for a hanging one.
const servicePatience = 4 * time.Second

// Report looks at everything now. The caller numbers it.
func (c *Collector) Report(ctx context.Context) (agents.Report, error) {
	r := agents.Report{V: 1, Node: c.node, BootID: c.bootID, Time: c.now().UTC(), Release: c.machine.release(),
		Host: c.machine.host(), Disks: c.disks.Disks(), Mirrors: c.mirrors.Mirrors(),
		BootChanged: facts.Host{Root: c.machine.root}.BootChanged()}
	asking, cancel := context.WithTimeout(ctx, servicePatience)
	defer cancel()
	r.Services, r.Pairs = askAll(asking, c.services)
	if ctx.Err() != nil {
		return agents.Report{}, fmt.Errorf("collect a report: %w", ctx.Err())
	}
	return r, nil
}
