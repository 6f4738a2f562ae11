package bootcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
)

// device is a block device by its kernel name, and the mirror it is, if it is one.
type device struct {
	name   string // md127, nvme0n1p3
	mirror *mirror
}

// mirror is an md array as the kernel sees it now (kernel: Documentation/admin-guide/md.rst).
type mirror struct {
	label   string // what we called it: fleet-boot
	want    int
	sync    string            // idle, resync, recover, …
	members map[string]string // kernel name → in_sync, faulty, spare, …
}

func (m mirror) inSync() (names []string) {
	for name, state := range m.members {
		if slices.Contains(strings.Split(state, ","), "in_sync") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// bootDevice has /boot mounted and finds what it lies on.
func (c Checker) bootDevice(ctx context.Context) (device, error) {
	if _, err := c.Run.Run(ctx, command.Cmd{Argv: bootchain.MountBoot()}); err != nil {
		return device{}, err
	}
	numbers := ""
	for line := range strings.Lines(readString(c.path("/proc/self/mountinfo"))) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/boot" {
			numbers = f[2]
		}
	}
	if numbers == "" {
		return device{}, errors.New("/boot is no file system of its own")
	}
	real, err := filepath.EvalSymlinks(c.path("/sys/dev/block", numbers))
	if err != nil {
		return device{}, fmt.Errorf("the device under /boot: %w", err)
	}
	return c.device(filepath.Base(real))
}

func (c Checker) rootDevice() (device, error) {
	find := c.RootDevice
	if find == nil {
		find = c.Host.RootDevice
	}
	dev, err := find()
	if err != nil {
		return device{}, err
	}
	return c.device(filepath.Base(dev))
}

func (c Checker) device(name string) (device, error) {
	d := device{name: name}
	md := c.path("/sys/block", name, "md")
	if _, err := os.Stat(md); err != nil {
		return d, nil
	}
	m := &mirror{label: name, members: map[string]string{}, sync: attr(md, "sync_action")}
	if _, err := fmt.Sscanf(attr(md, "raid_disks"), "%d", &m.want); err != nil {
		return d, fmt.Errorf("array %s: raid_disks: %w", name, err)
	}
	members, err := filepath.Glob(filepath.Join(md, "dev-*"))
	if err != nil {
		return d, err
	}
	for _, member := range members {
		m.members[strings.TrimPrefix(filepath.Base(member), "dev-")] = attr(member, "state")
	}
	d.mirror = m
	return d, nil
}

func attr(dir, name string) string { return strings.TrimSpace(readString(filepath.Join(dir, name))) }
