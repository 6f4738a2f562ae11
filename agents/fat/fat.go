// Package fat reads the files of a FAT16 or FAT32 file system without mounting it: an EFI system partition is looked at
// through its device, so that the look works with any kernel, changes nothing (mounting sets a dirty bit and times) and
// leaves nothing mounted. It never writes. The bytes are a stranger's: every chain and size is bounded by the device,
// and what does not add up is an error.
//
// Layout: Microsoft, "FAT File System Specification" (fatgen103), and the kernel's fs/fat.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

const (
	maxFiles    = 2000
	maxDepth    = 8
	maxDirBytes = 1 << 20
	maxFile     = 256 << 20
)

// FS is an opened file system.
type FS struct {
	r            io.ReaderAt
	wide         bool // FAT32
	clusterBytes int64
	fatAt        int64
	dataAt       int64
	clusters     uint32 // the last valid one is clusters+1
	rootAt       int64  // FAT16: a fixed area
	rootBytes    int64
	rootCluster  uint32 // FAT32
}

// File is a regular file; Path has slashes and the name's case as stored.
type File struct {
	Path string
	Size int64

	fs    *FS
	first uint32
}

// Open reads the boot sector.
func Open(r io.ReaderAt) (*FS, error) {
	var b [512]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("read the boot sector: %w", err)
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	sector, perCluster, reserved, fats := u16(11), int64(b[13]), u16(14), int64(b[16])
	if b[510] != 0x55 || b[511] != 0xaa || sector < 512 || sector > 4096 || sector&(sector-1) != 0 ||
		perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || fats == 0 || fats > 2 {
		return nil, errors.New("no FAT file system")
	}
	fatSectors, total := u16(22), u16(19)
	if fatSectors == 0 {
		fatSectors = u32(36)
	}
	if total == 0 {
		total = u32(32)
	}
	f := &FS{r: r, clusterBytes: sector * perCluster, fatAt: reserved * sector, rootBytes: u16(17) * 32}
	f.rootAt = (reserved + fats*fatSectors) * sector
	f.dataAt = f.rootAt + (f.rootBytes+sector-1)/sector*sector
	clusters := (total*sector - f.dataAt) / f.clusterBytes
	if clusters < 4085 || clusters > 0x0ffffff5 { // fewer is FAT12
		return nil, fmt.Errorf("a FAT file system of %d clusters", clusters)
	}
	if _, err := r.ReadAt(b[:1], total*sector-1); err != nil {
		return nil, fmt.Errorf("a FAT file system larger than its partition: %w", err)
	}
	f.clusters, f.wide = uint32(clusters), clusters >= 65525
	if f.wide {
		f.rootCluster = uint32(u32(44))
	}
	if width := int64(2) << map[bool]int{true: 1}[f.wide]; fatSectors*sector < (clusters+2)*width {
		return nil, errors.New("a FAT file system whose table is too small for it")
	}
	return f, nil
}

// Files are all regular files, in the order of the directories.
func (f *FS) Files() ([]File, error) {
	var root io.Reader
	if f.wide {
		root = f.chain(f.rootCluster)
	} else {
		root = io.NewSectionReader(f.r, f.rootAt, f.rootBytes)
	}
	w := walk{fs: f}
	err := w.dir("", root, 0)
	return w.files, err
}

// Open reads the file's content.
func (f File) Open() io.Reader {
	if f.Size == 0 {
		return strings.NewReader("")
	}
	return exactly(f.fs.chain(f.first), f.Size)
}

// chain reads a chain of clusters to its end.
func (f *FS) chain(first uint32) io.Reader { return &chain{fs: f, next: first} }

type chain struct {
	fs   *FS
	next uint32
	read uint32 // clusters so far; more than there are is a loop
	rest []byte
}

func (c *chain) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.cluster(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *chain) cluster() error {
	last := uint32(0xfff8)
	if c.fs.wide {
		last = 0x0ffffff8
	}
	if c.next >= last {
		return io.EOF
	}
	if c.next < 2 || c.next-2 >= c.fs.clusters || c.read > c.fs.clusters {
		return fmt.Errorf("a chain that leads to cluster %d", c.next)
	}
	data := make([]byte, c.fs.clusterBytes)
	if _, err := c.fs.r.ReadAt(data, c.fs.dataAt+int64(c.next-2)*c.fs.clusterBytes); err != nil {
		return fmt.Errorf("read cluster %d: %w", c.next, err)
	}
	next, err := c.fs.follow(c.next)
	c.next, c.rest = next, data
	c.read++
	return err
}

// follow reads the table's entry for a cluster.
func (f *FS) follow(cluster uint32) (uint32, error) {
	var b [4]byte
	width := int64(2)
	if f.wide {
		width = 4
	}
	if _, err := f.r.ReadAt(b[:width], f.fatAt+int64(cluster)*width); err != nil {
		return 0, fmt.Errorf("read the table: %w", err)
	}
	return binary.LittleEndian.Uint32(b[:]) & 0x0fffffff, nil
}

type exact struct {
	r    io.Reader
	left int64
}

// exactly reads size bytes; a chain that ends before is an error.
func exactly(r io.Reader, size int64) io.Reader { return &exact{r, size} }

func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("a file that is %d bytes shorter than its entry says: %w", e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

func utf16String(units []uint16) string {
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units))
}
