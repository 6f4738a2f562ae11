package mend

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// A node's image has no partitioner. What is needed is one copy of one table that an installation of ours wrote, so it
// is made here (UEFI specification §5.3: "GPT disk layout").
const (
	entries     = 128
	entryBytes  = 128
	headerBytes = 92
)

// layout is a disk's partition table, in sectors of its own size.
type layout struct {
	sector  int64
	entries []byte
}

// readLayout reads the table of a disk of this node. It must be whole: it is about to be copied.
func readLayout(r io.ReaderAt, sector int64) (layout, error) {
	h := make([]byte, headerBytes)
	if _, err := r.ReadAt(h, sector); err != nil {
		return layout{}, err
	}
	sum := binary.LittleEndian.Uint32(h[16:])
	clear(h[16:20])
	switch {
	case string(h[:8]) != "EFI PART" || binary.LittleEndian.Uint32(h[12:]) != headerBytes:
		return layout{}, errors.New("no GPT of ours")
	case crc32.ChecksumIEEE(h) != sum:
		return layout{}, errors.New("the GPT header's checksum is wrong")
	case binary.LittleEndian.Uint32(h[80:]) != entries || binary.LittleEndian.Uint32(h[84:]) != entryBytes:
		return layout{}, errors.New("a GPT of another size than ours")
	}
	l := layout{sector, make([]byte, entries*entryBytes)}
	at := binary.LittleEndian.Uint64(h[72:])
	if at != 2 {
		return layout{}, fmt.Errorf("the GPT's entries begin at sector %d", at)
	}
	if _, err := r.ReadAt(l.entries, int64(at)*sector); err != nil {
		return layout{}, err
	}
	if crc32.ChecksumIEEE(l.entries) != binary.LittleEndian.Uint32(h[88:]) {
		return layout{}, errors.New("the GPT entries' checksum is wrong")
	}
	return l, l.check()
}

// check demands the four partitions of a node and no others.
func (l layout) check() error {
	names := map[int]string{disk.PartESP: disk.NameESP, disk.PartBoot: disk.NameBoot, disk.PartRoot: disk.NameRoot}
	for n := 1; n <= entries; n++ {
		e := l.entry(n)
		used := !bytes.Equal(e[:16], make([]byte, 16))
		switch {
		case used != (n <= disk.PartRoot):
			return fmt.Errorf("partition %d is not as on a node's disk", n)
		case used && l.last(n) < l.first(n):
			return fmt.Errorf("partition %d ends before it begins", n)
		case used && names[n] != "" && l.name(n) != names[n]:
			return fmt.Errorf("partition %d is called %q", n, l.name(n))
		}
	}
	return nil
}

func (l layout) entry(n int) []byte { return l.entries[(n-1)*entryBytes : n*entryBytes] }

func (l layout) first(n int) uint64 { return binary.LittleEndian.Uint64(l.entry(n)[32:]) }
func (l layout) last(n int) uint64  { return binary.LittleEndian.Uint64(l.entry(n)[40:]) }

func (l layout) name(n int) string {
	var units []uint16
	for i := 56; i < entryBytes; i += 2 {
		u := binary.LittleEndian.Uint16(l.entry(n)[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// rename gives the first partition its name: the marker.
func (l layout) rename(name string) {
	e := l.entry(disk.PartBIOS)
	clear(e[56:])
	for i, u := range utf16.Encode([]rune(name)) {
		if 56+2*i+2 > entryBytes {
			return
		}
		binary.LittleEndian.PutUint16(e[56+2*i:], u)
	}
}

// needs is how large a disk must be for the table, in bytes.
func (l layout) needs() int64 {
	var last uint64
	for n := disk.PartBIOS; n <= disk.PartRoot; n++ {
		last = max(last, l.last(n))
	}
	return (int64(last) + 1 + l.entrySectors() + 1) * l.sector
}

func (l layout) entrySectors() int64 { return (int64(len(l.entries)) + l.sector - 1) / l.sector }

// fresh is the same layout with GUIDs of its own, and unfinished.
func (l layout) fresh() (layout, error) {
	out := layout{l.sector, bytes.Clone(l.entries)}
	for n := disk.PartBIOS; n <= disk.PartRoot; n++ {
		if err := newGUID(out.entry(n)[16:32]); err != nil {
			return out, err
		}
	}
	out.rename(Unfinished)
	return out, nil
}

func newGUID(b []byte) error {
	if _, err := rand.Read(b); err != nil {
		return err
	}
	b[7] = b[7]&0x0f | 0x40 // version 4; the third field is little-endian
	b[8] = b[8]&0x3f | 0x80
	return nil
}

// write puts the table on a disk of the given size: backup, entries and header, then the protective MBR. guid is the
// disk's own. Boot code before the MBR's table stays.
func (l layout) write(w interface {
	io.ReaderAt
	io.WriterAt
}, sizeBytes int64, guid []byte) error {
	if sizeBytes < l.needs() {
		return &spec.Error{Code: spec.CodeDiskTooSmall, Message: fmt.Sprintf("the disk has %d bytes, the mirrors need %d", sizeBytes, l.needs())}
	}
	total := uint64(sizeBytes / l.sector)
	at := func(sector uint64) int64 { return int64(sector) * l.sector }
	es := uint64(l.entrySectors())
	mbr, err := l.protective(w, total)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		sector uint64
		data   []byte
	}{
		{total - 1 - es, l.entries}, {total - 1, l.header(total, guid, total-1, 1, total-1-es)},
		{2, l.entries}, {1, l.header(total, guid, 1, total-1, 2)}, {0, mbr},
	} {
		if _, err := w.WriteAt(part.data, at(part.sector)); err != nil {
			return fmt.Errorf("write the partition table: %w", err)
		}
	}
	return nil
}

func (l layout) header(total uint64, guid []byte, here, there, first uint64) []byte {
	h := make([]byte, l.sector)
	es := uint64(l.entrySectors())
	copy(h, "EFI PART\x00\x00\x01\x00")
	binary.LittleEndian.PutUint32(h[12:], headerBytes)
	binary.LittleEndian.PutUint64(h[24:], here)
	binary.LittleEndian.PutUint64(h[32:], there)
	binary.LittleEndian.PutUint64(h[40:], 2+es)
	binary.LittleEndian.PutUint64(h[48:], total-2-es)
	copy(h[56:72], guid)
	binary.LittleEndian.PutUint64(h[72:], first)
	binary.LittleEndian.PutUint32(h[80:], entries)
	binary.LittleEndian.PutUint32(h[84:], entryBytes)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(l.entries))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerBytes]))
	return h
}

// protective is the first sector: one entry that covers the disk, so that what knows no GPT keeps away.
func (l layout) protective(r io.ReaderAt, total uint64) ([]byte, error) {
	b := make([]byte, l.sector)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	clear(b[440:])
	copy(b[446:], "\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00")
	binary.LittleEndian.PutUint32(b[458:], uint32(min(total-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b, nil
}
