package bootchain

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// Install puts both boot loaders on a disk of this machine: GRUB for BIOS into its first sector and partition, for UEFI
// into its EFI system partition, which is mounted at the folder at meanwhile.
func (l Loaders) Install(d spec.Disk, at string) error {
	sys := filepath.Join("/sys/block", filepath.Base(d.Path), filepath.Base(disk.Partition(d.Path, disk.PartBIOS)))
	first, err := number(filepath.Join(sys, "start"))
	if err != nil {
		return err
	}
	sectors, err := number(filepath.Join(sys, "size"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(l.WriteBIOS(f, uint64(first), sectors*sector), f.Sync(), f.Close()); err != nil {
		return err
	}
	return l.mountEFI(disk.Partition(d.Path, disk.PartESP), at)
}

func (l Loaders) mountEFI(dev, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dev, at, "vfat", unix.MS_NOATIME, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s: %w", dev, err)
	}
	return errors.Join(l.WriteEFI(at), unix.Unmount(at, 0))
}

func number(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
}
