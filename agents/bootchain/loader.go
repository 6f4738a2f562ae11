package bootchain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// LoaderDir is where the image keeps the boot loaders it was built with, relative to the root.
const LoaderDir = "/usr/lib/fleet/boot"

// Loaders are GRUB's parts, made once at image build with everything they need inside: installing them is copying
// bytes, which takes no time even on an emulated machine, where grub-install takes long.
type Loaders struct {
	Boot []byte // boot.img, 512 bytes, for the disk's first sector
	Core []byte // core.img, for the BIOS boot partition
	EFI  []byte // for EFI/BOOT/BOOTX64.EFI
}

// ReadLoaders reads them from an unpacked image at root.
func ReadLoaders(root string) (Loaders, error) {
	var l Loaders
	for name, into := range map[string]*[]byte{"boot.img": &l.Boot, "core.img": &l.Core, "bootx64.efi": &l.EFI} {
		b, err := os.ReadFile(filepath.Join(root, LoaderDir, name))
		if err != nil {
			return Loaders{}, fmt.Errorf("boot loaders of the image: %w", err)
		}
		*into = b
	}
	if len(l.Boot) != sector || len(l.Core) < 2*sector || len(l.EFI) == 0 {
		return Loaders{}, errors.New("boot loaders of the image: a part has an impossible size")
	}
	return l, nil
}

// BootCodeEnd is where boot code ends in a disk's first sector; the disk's signature and partition table follow.
const BootCodeEnd = 0x1b8

const (
	sector = 512
	// Offsets from GRUB 2.06 include/grub/i386/pc/boot.h and diskboot.S.
	bootKernelSector = 0x5c // 64 bit: where core.img begins
	bootDriveCheck   = 0x66 // two bytes to be NOPs on a hard disk: keep the drive number the BIOS gives
	coreBlocklist    = sector - 12
)

// Disk is a disk opened for writing.
type Disk interface {
	io.ReaderAt
	io.WriterAt
}

// WriteBIOS does what grub-bios-setup does for a GPT disk with a BIOS boot partition: core.img goes into the partition,
// boot.img into the first sector, each told where its successor is. first and sizeBytes are the partition's, in 512
// byte sectors and bytes. core.img goes first, so that a cut leaves the former loader or a whole one.
func (l Loaders) WriteBIOS(d Disk, first uint64, sizeBytes int64) error {
	core, err := l.core(first, sizeBytes)
	if err != nil {
		return err
	}
	if _, err := d.WriteAt(core, int64(first)*sector); err != nil {
		return fmt.Errorf("write core.img: %w", err)
	}
	mbr, err := l.mbr(d, first)
	if err != nil {
		return err
	}
	if _, err := d.WriteAt(mbr, 0); err != nil {
		return fmt.Errorf("write the first sector: %w", err)
	}
	return nil
}

// VerifyBIOS returns nil when the disk carries what WriteBIOS writes.
func (l Loaders) VerifyBIOS(d io.ReaderAt, first uint64, sizeBytes int64) error {
	core, err := l.core(first, sizeBytes)
	if err != nil {
		return err
	}
	mbr, err := l.mbr(d, first)
	if err != nil {
		return err
	}
	return errors.Join(
		same(d, 0, mbr, "the first sector holds another boot loader"),
		same(d, int64(first)*sector, core, "the BIOS boot partition holds another core.img"))
}

func same(d io.ReaderAt, at int64, want []byte, otherwise string) error {
	have := make([]byte, len(want))
	if _, err := d.ReadAt(have, at); err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return errors.New(otherwise)
	}
	return nil
}

// core is core.img as it lies in a BIOS boot partition.
func (l Loaders) core(first uint64, sizeBytes int64) ([]byte, error) {
	if int64(len(l.Core)) > sizeBytes {
		return nil, fmt.Errorf("core.img has %d bytes, the BIOS boot partition %d", len(l.Core), sizeBytes)
	}
	core := bytes.Clone(l.Core)
	binary.LittleEndian.PutUint64(core[coreBlocklist:], first+1)
	return core, nil
}

// mbr is the disk's first sector with boot.img in it.
func (l Loaders) mbr(d io.ReaderAt, first uint64) ([]byte, error) {
	mbr := make([]byte, sector)
	if _, err := d.ReadAt(mbr, 0); err != nil {
		return nil, fmt.Errorf("read the first sector: %w", err)
	}
	copy(mbr[:BootCodeEnd], l.Boot)
	binary.LittleEndian.PutUint64(mbr[bootKernelSector:], first)
	mbr[bootDriveCheck], mbr[bootDriveCheck+1] = 0x90, 0x90
	mbr[510], mbr[511] = 0x55, 0xaa
	return mbr, nil
}

// EFIFile is the removable-media loader in an EFI system partition.
const EFIFile = "EFI/BOOT/BOOTX64.EFI"

// WriteEFI puts the removable-media loader into a mounted EFI system partition: firmware finds it there without an
// entry in NVRAM, which a provider's netboot or a swapped disk would lose.
func (l Loaders) WriteEFI(mount string) error {
	path := filepath.Join(mount, EFIFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return WriteFile(path, l.EFI, 0o755)
}

// WriteFile replaces a file as a whole and has it on disk before it returns: a power cut leaves the old or the new one.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
