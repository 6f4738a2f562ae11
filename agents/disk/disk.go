// Package disk finds a machine's fixed disks by serial in /sys and says what is on them by reading their first bytes.
// It never writes and runs no program; a disk it can't read has Content "unreadable: …", never "empty".
package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"popfleet/playbooks/spec"
)

// Host is where a machine's /sys and /dev are; the zero value is this machine.
type Host struct{ Root string }

func (h Host) path(p string) string { return filepath.Join(h.Root, p) }

// skipped block devices are no disks, or not ours to install on.
var skipped = []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock", "drbd"}

// List returns every fixed, writable disk, ordered by serial. Two disks with one serial are an error: a name that fits
// two disks can't be used to wipe one.
func (h Host) List() ([]spec.Disk, error) {
	entries, err := os.ReadDir(h.path("/sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var disks []spec.Disk
	for _, e := range entries {
		if slices.ContainsFunc(skipped, func(p string) bool { return strings.HasPrefix(e.Name(), p) }) {
			continue
		}
		if d, ok := h.one(e.Name()); ok {
			disks = append(disks, d)
		}
	}
	slices.SortFunc(disks, func(a, b spec.Disk) int { return cmp.Or(cmp.Compare(a.Serial, b.Serial), cmp.Compare(a.Path, b.Path)) })
	for i := 1; i < len(disks); i++ {
		if disks[i].Serial != "" && disks[i].Serial == disks[i-1].Serial {
			return nil, fmt.Errorf("disks %s and %s have the same serial %q", disks[i-1].Path, disks[i].Path, disks[i].Serial)
		}
	}
	return disks, nil
}

// one reads a disk's identity; false for what is read-only, removable or without a medium.
func (h Host) one(name string) (spec.Disk, bool) {
	dir := h.path("/sys/block/" + name)
	sectors, err := strconv.ParseInt(attr(dir, "size"), 10, 64)
	if err != nil || sectors == 0 || attr(dir, "ro") == "1" || attr(dir, "removable") == "1" || attr(dir, "hidden") == "1" {
		return spec.Disk{}, false
	}
	d := spec.Disk{
		Path:      "/dev/" + name,
		SizeBytes: sectors * 512, // the kernel counts in 512 whatever the disk's own sector size
		Model:     attr(dir, "device/model"),
		WWN:       cmp.Or(attr(dir, "wwid"), attr(dir, "device/wwid")),
		Serial:    h.Serial(name),
	}
	h.content(&d)
	return d, true
}

// Serial is what names the disk that the kernel calls name, "" when nothing does. It opens no device.
func (h Host) Serial(name string) string {
	dir := h.path("/sys/block/" + name)
	return cmp.Or(attr(dir, "serial"), attr(dir, "device/serial"), scsiSerial(dir),
		attr(dir, "wwid"), attr(dir, "device/wwid")) // a controller that hides serials still names its disks
}

func attr(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
}

// scsiSerial is page 0x80 of the disk's vital product data: a four byte header, then the serial.
func scsiSerial(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80"))
	if err != nil || len(b) <= 4 {
		return ""
	}
	return strings.Trim(string(b[4:]), " \x00")
}

// content says what is on the disk.
func (h Host) content(d *spec.Disk) {
	f, err := os.Open(h.path(d.Path))
	if errors.Is(err, fs.ErrNotExist) {
		d.Content = "unreadable: no device node"
		return
	}
	if err != nil {
		d.Content = "unreadable: " + err.Error()
		return
	}
	defer f.Close()
	c, err := Identify(f)
	if err != nil {
		d.Content = "unreadable: " + err.Error()
		return
	}
	d.Marker, d.Content, d.Bootable = c.Marker, c.String(), c.Bootable
}

// Partition is the path of a disk's n-th partition.
func Partition(diskPath string, n int) string {
	if last := diskPath[len(diskPath)-1]; last >= '0' && last <= '9' {
		return fmt.Sprintf("%sp%d", diskPath, n)
	}
	return fmt.Sprintf("%s%d", diskPath, n)
}
