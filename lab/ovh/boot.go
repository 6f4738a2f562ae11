package ovh

import (
	"fmt"
	"slices"
	"strings"

	"popfleet/lab/ovh/api"
)

// netboot is one thing a server can be told to start from.
type netboot struct {
	ID          int64  `json:"bootId"`
	Type        string `json:"bootType"`
	Description string `json:"description"`
	Kernel      string `json:"kernel"`
}

// Kernels by which a boot is known across regions.
const (
	kernelDisk   = "hd"
	kernelRescue = "rescue-customer"
	kernelOff    = "poweroff"
)

// netboots lists each region's boots. The ids of disk, rescue-customer, shell and poweroff in EU and the ids in US are
// reported in synthesio/infra-ovh-ansible-module #89 and #101; that two more boots have the type rescue, in #89 and in
// the provider's guide to rescue-customer-windows. The other ids are the lab's own.
var netboots = map[string][]netboot{
	"EU": boots(1, 46371, 203323, 208347, 95083),
	"CA": boots(1, 46372, 203324, 208348, 95084),
	"US": boots(1, 86152, 191853, 191854, 39720),
}

func boots(disk, rescue, shell, windows, off int64) []netboot {
	return []netboot{
		{disk, "harddisk", "Boot from hard drive (no netboot)", kernelDisk},
		{shell, "rescue", "iPXE shell", "ipxe-shell"},
		{windows, "rescue", "Windows rescue system for customers", "rescue-customer-windows"},
		{rescue, "rescue", "Rescue system for customers, Linux based", kernelRescue},
		{off, "power", "Power off the server", kernelOff},
	}
}

// boots are those on this server's list.
func (o *OVH) boots() []netboot { return netboots[o.opt.Region] }

// boot finds a boot by its id.
func (o *OVH) boot(id int64) (netboot, bool) {
	i := slices.IndexFunc(o.boots(), func(b netboot) bool { return b.ID == id })
	if i < 0 {
		return netboot{}, false
	}
	return o.boots()[i], true
}

// kernelID is the id that a kernel has in this region.
func (o *OVH) kernelID(kernel string) int64 {
	for _, b := range o.boots() {
		if b.Kernel == kernel {
			return b.ID
		}
	}
	return 0
}

// booting is what the server starts from next; without a choice it is the disk.
func (o *OVH) booting(s *server) netboot {
	if s.BootID != nil {
		if b, ok := o.boot(*s.BootID); ok {
			return b
		}
	}
	b, _ := o.boot(o.kernelID(kernelDisk))
	return b
}

// offList is the answer to a boot id of another region.
func (o *OVH) offList(id int64) *api.Error {
	var ids []string
	for _, b := range o.boots() {
		ids = append(ids, fmt.Sprint(b.ID))
	}
	return api.NotFound("Netboot id %d is not valid, must be on list : %s", id, strings.Join(ids, ", "))
}

func (o *OVH) listBoots(r *request, _ *server) (any, error) {
	kind := r.Query.Get("bootType")
	if kind != "" && !slices.Contains([]string{"harddisk", "internal", "network", "power", "rescue"}, kind) {
		return nil, api.Bad("[query.bootType] Given data (%s) does not belong to the BootTypeEnum enumeration", kind)
	}
	out := []int64{}
	for _, b := range o.boots() {
		if kind == "" || b.Type == kind {
			out = append(out, b.ID)
		}
	}
	return out, nil
}

func (o *OVH) getBoot(r *request, _ *server) (any, error) {
	b, ok := o.boot(r.ID("bootId"))
	if !ok {
		return nil, api.NoObject("bootId", r.Args["bootId"])
	}
	return b, nil
}
