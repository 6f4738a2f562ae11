package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// The partitions of a node's disk, by number and GPT name. Partition 1 (BIOS boot) carries the marker as its name: the
// id of the installation, readable without any key.
const (
	PartBIOS = 1
	PartESP  = 2
	PartBoot = 3
	PartRoot = 4

	NameESP  = "fleet-esp"
	NameBoot = "fleet-boot"
	NameRoot = "fleet-root"
)

// Content is what was found on a disk.
type Content struct {
	Marker     string // id of the installation that partitioned it
	Node       string // from the LUKS header, where this disk alone carries it
	Partitions []Found
	Whole      string // a file system or the like without partitions
	Table      string // gpt | mbr | ""
	Bootable   bool   // firmware could start something from it: boot code, an ESP, a BIOS boot partition
}

// Found is one partition and what it begins with.
type Found struct {
	Number int
	Name   string
	Kind   string // "ext4", "luks2", "md member", "" when nothing known was found
}

// Linux tells whether somebody could miss what is here: any file system, volume manager or encrypted container.
func (c Content) Linux() bool {
	for _, p := range c.Partitions {
		if p.Kind != "" && p.Kind != "vfat" {
			return true
		}
	}
	return c.Whole != "" && c.Whole != "vfat"
}

// Ours tells whether this disk was partitioned by an installation of ours.
func (c Content) Ours() bool { return c.Marker != "" }

// String says it in words for people.
func (c Content) String() string {
	switch {
	case c.Ours() && c.Node != "":
		return "fleet node " + c.Node
	case c.Ours():
		return "fleet node (installation " + c.Marker + ")"
	}
	var kinds []string
	for _, p := range c.Partitions {
		if p.Kind != "" {
			kinds = append(kinds, p.Kind)
		}
	}
	if c.Whole != "" {
		kinds = append(kinds, c.Whole)
	}
	switch {
	case len(kinds) > 0 && c.Linux():
		return "linux: " + strings.Join(kinds, " ")
	case len(kinds) > 0:
		return strings.Join(kinds, " ")
	case c.Table != "":
		return "empty " + c.Table + " table"
	}
	return "empty"
}

// Identify reads what a disk begins with. The bytes are a stranger's: nothing in them is trusted with a size.
func Identify(r io.ReaderAt) (Content, error) {
	var head [512]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return Content{}, err
	}
	for _, sector := range []int64{512, 4096} {
		parts, ok, err := gpt(r, sector)
		if err != nil {
			return Content{}, err
		}
		if ok {
			c := described(r, parts, sector)
			c.Bootable = bootCode(head[:]) || slices.ContainsFunc(parts, func(p gptPart) bool { return p.boots })
			return c, nil
		}
	}
	c := Content{}
	c.Whole, _ = signature(r, 0)
	if c.Whole == "" && head[510] == 0x55 && head[511] == 0xaa {
		c.Table = "mbr"
		c.Partitions = mbr(r, head[:])
		c.Bootable = bootCode(head[:])
	}
	return c, nil
}

// bootCode tells whether a BIOS would find something to run in a first sector, be it only a loader that complains.
func bootCode(head []byte) bool { return !bytes.Equal(head[:440], make([]byte, 440)) }

// Partition types that a firmware or its boot loader starts from, as they lie on the disk (UEFI specification §5.3.3,
// GRUB manual "BIOS installation").
var bootTypes = []string{
	"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b", // EFI system partition
	"Hah!IdontNeedEFI", // BIOS boot partition
}

type gptPart struct {
	number int
	start  int64 // in sectors
	name   string
	boots  bool
}

const maxGPTParts = 128

// gpt reads the primary table, in sectors of the given size.
func gpt(r io.ReaderAt, sector int64) ([]gptPart, bool, error) {
	header := make([]byte, 92)
	if _, err := r.ReadAt(header, sector); err != nil {
		return nil, false, short(err)
	}
	if !bytes.Equal(header[:8], []byte("EFI PART")) {
		return nil, false, nil
	}
	start := binary.LittleEndian.Uint64(header[72:])
	count, size := binary.LittleEndian.Uint32(header[80:]), binary.LittleEndian.Uint32(header[84:])
	if start > 1<<20 || size < 128 || size > 4096 {
		return nil, false, nil
	}
	entries := make([]byte, int(min(count, maxGPTParts))*int(size))
	if _, err := r.ReadAt(entries, int64(start)*sector); err != nil {
		return nil, false, short(err)
	}
	var parts []gptPart
	for i := 0; (i+1)*int(size) <= len(entries); i++ {
		e := entries[i*int(size):]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first := binary.LittleEndian.Uint64(e[32:])
		if first > 1<<48 {
			continue
		}
		parts = append(parts, gptPart{i + 1, int64(first), utf16Name(e[56:128]), slices.Contains(bootTypes, string(e[:16]))})
	}
	return parts, true, nil
}

func described(r io.ReaderAt, parts []gptPart, sector int64) Content {
	c := Content{Table: "gpt"}
	first := ""
	root := false
	for _, p := range parts {
		kind, label := signature(r, p.start*sector)
		c.Partitions = append(c.Partitions, Found{p.number, p.name, kind})
		if p.number == PartBIOS {
			first = p.name
		}
		if p.number == PartRoot && p.name == NameRoot {
			root = true
			c.Node = strings.TrimPrefix(label, "fleet/")
		}
	}
	if root {
		c.Marker = first
	}
	return c
}

func mbr(r io.ReaderAt, head []byte) []Found {
	var found []Found
	for i := range 4 {
		e := head[446+16*i:]
		if e[4] == 0 {
			continue
		}
		kind, _ := signature(r, int64(binary.LittleEndian.Uint32(e[8:]))*512)
		found = append(found, Found{Number: i + 1, Kind: kind})
	}
	return found
}

func utf16Name(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// short makes a read past the end of a small device "nothing there".
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read partition table: %w", err)
}
