package bootcheck

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/mirror"
)

// device is a block device by its kernel name, and the mirror it is, if it is one.
type device struct {
	name   string // md127, nvme0n1p3
	mirror *mirror.Array
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
	a, ok := mirror.Host{Root: c.Host.Root}.Array(name)
	if !ok {
		return d, nil
	}
	if a.Wanted == 0 {
		return d, fmt.Errorf("array %s: the kernel does not say how many members it should have", name)
	}
	d.mirror = &a
	return d, nil
}

func attr(dir, name string) string { return strings.TrimSpace(readString(filepath.Join(dir, name))) }
