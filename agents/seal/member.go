package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"popfleet/agents/disk"
)

// A member of an array that is not running keeps a LUKS header of its own: a disk that was pulled and came back, or all of
// them in a rescue system that assembles nothing. cryptsetup does not see it, and a slot that was destroyed on the running
// array still opens there. So it is overwritten where it lies.

const (
	superblockAt = 4096 // of metadata 1.2, which our arrays have
	mdMagic      = 0xa92b4efc
	// headerArea is what LUKS2 keeps before the data by default: both headers and every key slot.
	headerArea = 16 << 20
)

// arrayData says where the data of an array's member begins; false when r is no member. Layout: struct
// mdp_superblock_1 in the kernel's include/uapi/linux/raid/md_p.h.
func arrayData(r io.ReaderAt) (offset int64, ok bool) {
	b := make([]byte, 136)
	if _, err := r.ReadAt(b, superblockAt); err != nil {
		return 0, false
	}
	le := binary.LittleEndian
	sectors := le.Uint64(b[128:])
	if le.Uint32(b) != mdMagic || le.Uint32(b[4:]) != 1 || sectors < 16 || sectors > 1<<40 {
		return 0, false
	}
	return int64(sectors) * 512, true
}

// loose finds the LUKS header on a member of an array that is not running, or the zeros that an earlier wipe put in its
// place: a run that was cut must be able to say that this disk is done. at is 0 when there is neither.
func (h Handler) loose(dev, node string) (at int64, err error) {
	f, err := os.Open(filepath.Join("/", h.Host.Root, dev))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	offset, member := arrayData(f)
	if !member {
		return 0, nil
	}
	if header, ok := disk.ReadLUKS(io.NewSectionReader(f, offset, headerArea)); ok {
		return offset, ownedBy(dev, header, node)
	}
	start := make([]byte, 1<<20)
	if _, err := f.ReadAt(start, offset); err != nil || !bytes.Equal(start, make([]byte, len(start))) {
		return 0, nil
	}
	return offset, nil
}

// overwrite destroys a header where it lies, and reads it back.
func (h Handler) overwrite(dev string, at int64) (err error) {
	f, err := os.OpenFile(filepath.Join("/", h.Host.Root, dev), os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zero := make([]byte, 1<<20)
	for off := int64(0); off < headerArea; off += int64(len(zero)) {
		n, err := f.WriteAt(zero, at+off)
		if err != nil && !errors.Is(err, io.ErrShortWrite) {
			return fmt.Errorf("overwrite the header at %d: %d bytes: %w", at+off, n, err)
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return h.readBack(dev, at)
}

// readBack opens the device anew, so that what is compared is what the kernel took.
func (h Handler) readBack(dev string, at int64) error {
	f, err := os.Open(filepath.Join("/", h.Host.Root, dev))
	if err != nil {
		return err
	}
	defer f.Close()
	block, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < headerArea; off += int64(len(block)) {
		if _, err := f.ReadAt(block, at+off); err != nil {
			return err
		}
		if !bytes.Equal(block, zero) {
			return fmt.Errorf("the header at %d is still there after it was overwritten", at+off)
		}
	}
	return nil
}
