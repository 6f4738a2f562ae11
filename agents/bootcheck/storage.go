package bootcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"popfleet/agents/bootchain"
	"popfleet/agents/disk"
	"popfleet/agents/fat"
	"popfleet/playbooks/spec"
)

const (
	doLoaders = "run `fleet-agent keep-boot` on the node: it copies the loaders of /usr/lib/fleet/boot to every disk"
	doDisk    = "see docs/runbooks/disk-failing.md; the node boots from what is left"
)

func bootPartition(_ context.Context, n *node) spec.BootProof {
	switch {
	case n.bootErr != nil:
		return failed("mount /boot on the node and look at `systemctl status boot.mount`", "/boot: %v", n.bootErr)
	case len(n.disks) == 0:
		return failed("the disks' partition 1 should be called "+n.id.Run+" (`sgdisk --print`); it is how a loader's disk is known",
			"no disk carries this installation (%s)", n.id.Run)
	}
	return passed("/boot is on %s; %s", n.boot.name, serials(n.disks))
}

func serials(disks []spec.Disk) string {
	var names []string
	for _, d := range disks {
		names = append(names, fmt.Sprintf("%s (%s)", d.Serial, filepath.Base(d.Path)))
	}
	return "disks " + strings.Join(names, ", ")
}

// mirrors looks at the arrays under /boot and the root. With a member less a node boots; but a disk that left the array
// of /boot and can still be read holds an older copy, and GRUB does not compare the members' ages before it reads: with
// the first member failed and another grub.cfg written since, it booted by the old one (measured on QEMU, BIOS).
func mirrors(_ context.Context, n *node) spec.BootProof {
	if n.rootErr != nil {
		return failed("the root should lie on the LUKS2 device of the installer", "the device under /: %v", n.rootErr)
	}
	if n.boot.mirror == nil && n.root.mirror == nil {
		return passed("one disk, no mirror")
	}
	var fine, thin []string
	for _, d := range []device{n.boot, n.root} {
		if d.mirror == nil {
			thin = append(thin, fmt.Sprintf("%s is no mirror", d.name))
			continue
		}
		text, whole := d.describe()
		if whole {
			fine = append(fine, text)
		} else {
			thin = append(thin, text)
		}
	}
	if stale := n.staleBoot(); len(stale) > 0 && n.boot.mirror.Action == "recover" {
		return failed("wait until `cat /proc/mdstat` shows it whole", "%s: %s is being written anew, and the boot loader may read it",
			strings.Join(thin, "; "), strings.Join(stale, ", "))
	} else if len(stale) > 0 {
		return failed("put it back (`mdadm /dev/md/fleet-boot --remove PART --add PART`), or take its copy away (`mdadm --zero-superblock PART`)",
			"%s; %s left the mirror of /boot and can still be read: the boot loader may take its older copy", strings.Join(thin, "; "), strings.Join(stale, ", "))
	}
	if len(thin) > 0 {
		return warned(doDisk, "degraded: %s", strings.Join(append(thin, fine...), "; "))
	}
	return passed("%s", strings.Join(fine, "; "))
}

func (d device) describe() (text string, whole bool) {
	m := d.mirror
	in := m.InSync()
	text = fmt.Sprintf("%s has %d of %d members in sync (%s)", d.name, len(in), m.Wanted, strings.Join(in, ", "))
	for _, x := range m.Members {
		if !x.InSync() {
			text += fmt.Sprintf(", %s is %s", x.Device, x.State)
		}
	}
	if m.Action != "" && m.Action != "idle" {
		text += ", " + m.Action
	}
	if m.Percent != nil {
		text += fmt.Sprintf(" %.0f %%", *m.Percent)
	}
	return text, !m.Degraded()
}

// staleBoot are partitions that hold a copy of /boot and are no members in sync of its array.
func (n *node) staleBoot() (parts []string) {
	if n.boot.mirror == nil {
		return nil
	}
	in := n.boot.mirror.InSync()
	for _, d := range n.disks {
		part := disk.Partition(d.Path, disk.PartBoot)
		if slices.Contains(in, filepath.Base(part)) {
			continue
		}
		f, err := n.open(part)
		if err != nil {
			continue // gone or dead: GRUB can't read it either
		}
		c, err := disk.Identify(f)
		f.Close()
		if err == nil && c.Whole == "md member" {
			parts = append(parts, filepath.Base(part))
		}
	}
	return parts
}

func biosLoader(_ context.Context, n *node) spec.BootProof {
	return n.eachDisk("BIOS", n.verifyBIOS)
}

func (c Checker) verifyBIOS(l bootchain.Loaders, d spec.Disk) error {
	first, sizeBytes, err := c.partition(d, disk.PartBIOS)
	if err != nil {
		return err
	}
	f, err := c.open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return l.VerifyBIOS(f, first, sizeBytes)
}

func uefiLoader(_ context.Context, n *node) spec.BootProof {
	return n.eachDisk("UEFI", n.verifyUEFI)
}

func (c Checker) verifyUEFI(l bootchain.Loaders, d spec.Disk) error {
	f, err := c.open(disk.Partition(d.Path, disk.PartESP))
	if err != nil {
		return err
	}
	defer f.Close()
	have, err := fileOf(f, bootchain.EFIFile)
	if err == nil && !bytes.Equal(have, l.EFI) {
		err = fmt.Errorf("%s is not the one of %s", bootchain.EFIFile, bootchain.LoaderDir)
	}
	return err
}

// VerifyLoaders returns nil when the disk carries both boot loaders of the image.
func (c Checker) VerifyLoaders(l bootchain.Loaders, d spec.Disk) error {
	return errors.Join(c.verifyBIOS(l, d), c.verifyUEFI(l, d))
}

// fileOf reads one file of a FAT file system. Names are compared as firmware does, whatever their case.
func fileOf(r io.ReaderAt, path string) ([]byte, error) {
	fs, err := fat.Open(r)
	if err != nil {
		return nil, err
	}
	files, err := fs.Files()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.EqualFold(f.Path, path) {
			return io.ReadAll(f.Open())
		}
	}
	return nil, fmt.Errorf("no %s", path)
}

func (n *node) eachDisk(what string, verify func(bootchain.Loaders, spec.Disk) error) spec.BootProof {
	if len(n.disks) == 0 {
		return failed("", "no disk carries this installation")
	}
	l, err := bootchain.ReadLoaders(n.path())
	if err != nil {
		return failed("install the node anew: its image's loaders are gone", "%v", err)
	}
	var errs []error
	for _, d := range n.disks {
		if err := verify(l, d); err != nil {
			errs = append(errs, fmt.Errorf("disk %s: %w", d.Serial, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return failed(doLoaders, "%s", oneLine(err))
	}
	return passed("the %s loader is whole on %d of %d disks", what, len(n.disks), len(n.disks))
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// partition is where a disk's partition begins, in sectors of 512 bytes, and its size.
func (c Checker) partition(d spec.Disk, number int) (first uint64, sizeBytes int64, err error) {
	dir := c.path("/sys/block", filepath.Base(d.Path), filepath.Base(disk.Partition(d.Path, number)))
	if first, err = strconv.ParseUint(attr(dir, "start"), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("partition %d: %w", number, err)
	}
	sectors, err := strconv.ParseInt(attr(dir, "size"), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("partition %d: %w", number, err)
	}
	return first, sectors * 512, nil
}

// open opens a device (or a test's file in its place) for reading.
func (c Checker) open(dev string) (*os.File, error) { return os.Open(c.path(dev)) }
