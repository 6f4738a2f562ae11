package smart

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// DiskReader is one opened disk. Read fills in what the disk says of itself; it may block for as long as a sick disk
// does. Only one goroutine calls it.
type DiskReader interface {
	Read(into *Reading) error
	Close() error
}

// errNoSMART says that a disk cannot be asked, which is no failure of it.
type errNoSMART string

func (e errNoSMART) Error() string { return string(e) }

// Reader reads all fixed disks of the machine. Opening identifies a disk, which is slow, so a disk is opened once and
// then only its logs are read; it is opened again after it failed or vanished. Not for concurrent use.
type Reader struct {
	list  func() ([]spec.Disk, error)
	names func() []string
	open  func(spec.Disk) (DiskReader, error)

	seen  []string // /sys/block when disks was listed
	disks []*opened
}

type opened struct {
	spec.Disk
	reader DiskReader // nil: not open
	denied error      // errNoSMART: not asked again until disks change
}

// NewReader reads this machine's disks.
func NewReader() *Reader {
	return &Reader{list: disk.Host{}.List, names: blockNames, open: openDisk}
}

func blockNames() []string {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Close lets go of every disk.
func (r *Reader) Close() {
	for _, d := range r.disks {
		d.close()
	}
	r.disks, r.seen = nil, nil
}

func (d *opened) close() {
	if d.reader != nil {
		d.reader.Close()
		d.reader = nil
	}
}

// Read asks every disk, in the order of their serials.
func (r *Reader) Read() ([]Reading, error) {
	if now := r.names(); r.disks == nil || !slices.Equal(now, r.seen) {
		if err := r.relist(); err != nil {
			return nil, err
		}
		r.seen = now
	}
	readings := []Reading{}
	for _, d := range r.disks {
		readings = append(readings, r.one(d))
	}
	return readings, nil
}

func (r *Reader) relist() error {
	disks, err := r.list()
	if err != nil {
		return err
	}
	r.Close()
	r.disks = []*opened{}
	for _, d := range disks {
		r.disks = append(r.disks, &opened{Disk: d})
	}
	return nil
}

func (r *Reader) one(d *opened) Reading {
	out := Reading{Serial: d.Serial, Model: d.Model, SizeBytes: d.SizeBytes, Kind: kindOf(d.Disk)}
	err := r.ask(d, &out)
	var none errNoSMART
	switch {
	case errors.As(err, &none):
		out.Unsupported = none.Error()
	case errors.Is(err, fs.ErrPermission):
		out.Error = err.Error() + " (needs CAP_SYS_ADMIN for NVMe, CAP_SYS_RAWIO for SATA, and the device node)"
	case err != nil:
		out.Error = err.Error()
	}
	return out
}

func (r *Reader) ask(d *opened, into *Reading) error {
	if d.denied != nil {
		return d.denied
	}
	if d.reader == nil {
		reader, err := r.open(d.Disk)
		if errors.As(err, new(errNoSMART)) {
			d.denied = err
		}
		if err != nil {
			return err
		}
		d.reader = reader
	}
	err := d.reader.Read(into)
	if err != nil {
		d.close() // perhaps it was pulled and came back: look anew next time
	}
	return err
}

// kindOf tells a disk's kind by its kernel name; sd disks may turn out to be SCSI when opened.
func kindOf(d spec.Disk) string {
	name := strings.TrimPrefix(d.Path, "/dev/")
	switch {
	case strings.HasPrefix(name, "nvme"):
		return KindNVMe
	case strings.HasPrefix(name, "vd"), strings.HasPrefix(name, "xvd"), strings.HasPrefix(d.Model, "QEMU HARDDISK") && !strings.HasPrefix(name, "sd"):
		return KindVirtual
	case strings.HasPrefix(name, "sd"):
		return KindSATA
	}
	return KindSCSI
}
