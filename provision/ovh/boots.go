package ovh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"popfleet/provision/provider"
)

// rescueKernel names OVH's rescue system for customers. The ids of boots differ from region to region and even from
// server to server, so a boot is always looked up in the server's own list by type and kernel.
const rescueKernel = "rescue-customer"

// boot is an entry of a server's list of netboots: dedicated.server.Netboot.
type boot struct {
	ID     int64  `json:"bootId"`
	Type   string `json:"bootType"` // harddisk, internal, network, power, rescue
	Kernel string `json:"kernel"`
}

// bootOf reads the boot that a server has set; one that is not set, or not known any more, has no type.
func (d *Driver) bootOf(ctx context.Context, op, service string, id int64) (boot, error) {
	if id == 0 {
		return boot{}, nil
	}
	b, err := d.boot(ctx, op, service, id)
	if errors.Is(err, provider.ErrNotFound) {
		return boot{ID: id}, nil
	}
	return b, err
}

func (d *Driver) boot(ctx context.Context, op, service string, id int64) (boot, error) {
	d.mu.Lock()
	b, ok := d.boots[service][id]
	d.mu.Unlock()
	if ok {
		return b, nil
	}
	err := d.get(ctx, fmt.Sprintf("%s: boot %d", op, id), fmt.Sprintf("%s/boot/%d", serverPath(service), id), &b)
	if err != nil {
		return b, err
	}
	b.ID = id
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.boots[service] == nil {
		d.boots[service] = map[int64]boot{}
	}
	d.boots[service][id] = b
	return b, nil
}

func (d *Driver) bootIDs(ctx context.Context, op, service, bootType string) ([]int64, error) {
	var ids []int64
	err := d.get(ctx, op+": list its boots", serverPath(service)+"/boot?bootType="+bootType, &ids)
	slices.Sort(ids)
	return ids, err
}

// rescueBoot finds the rescue system on the server's own list.
func (d *Driver) rescueBoot(ctx context.Context, op, service string) (int64, error) {
	ids, err := d.bootIDs(ctx, op, service, "rescue")
	if err != nil {
		return 0, err
	}
	var kernels []string
	for _, id := range ids {
		b, err := d.boot(ctx, op, service, id)
		if err != nil {
			return 0, err
		}
		if b.Kernel == rescueKernel && b.Type == "rescue" {
			return id, nil
		}
		kernels = append(kernels, printable(b.Kernel, 40))
	}
	return 0, &Error{Op: op, Kind: provider.ErrNoRescue,
		Err:  fmt.Errorf("the server offers no boot of kernel %s (it has: %s)", rescueKernel, strings.Join(kernels, ", ")),
		Hint: "ask OVH's support for the customer rescue system of this server"}
}

// diskBoot finds the boot from disk: the one it had before rescue, if that is still on the list, or else the first.
func (d *Driver) diskBoot(ctx context.Context, op, service string, now boot) (int64, error) {
	if now.Type == "harddisk" {
		return now.ID, nil
	}
	ids, err := d.bootIDs(ctx, op, service, "harddisk")
	if err != nil {
		return 0, err
	}
	if len(ids) == 0 {
		return 0, &Error{Op: op, Kind: provider.ErrNotFound, Err: errors.New("the server offers no boot of type harddisk"),
			Hint: "ask OVH's support"}
	}
	d.mu.Lock()
	before := d.disks[service]
	d.mu.Unlock()
	if slices.Contains(ids, before) {
		return before, nil
	}
	return ids[0], nil
}

// rememberDisk keeps which of several disk boots a server used.
func (d *Driver) rememberDisk(service string, b boot) {
	if b.Type != "harddisk" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disks[service] = b.ID
}
