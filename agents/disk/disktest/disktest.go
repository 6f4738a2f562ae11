// Package disktest makes what a node's disks begin with, for tests.
package disktest

import (
	"crypto/sha256"
	"encoding/binary"
	"unicode/utf16"
)

const luksArea = 16 << 10

// LUKS2 is a header of two copies of 16 KiB each, without key slots.
func LUKS2(uuid, subsystem string, seq uint64) []byte {
	dev := make([]byte, 8*luksArea)
	for i, magic := range []string{"LUKS\xba\xbe\x00\x02", "SKUL\xba\xbe\x00\x02"} {
		c := dev[i*luksArea : (i+1)*luksArea]
		copy(c, magic)
		binary.BigEndian.PutUint64(c[8:], luksArea)
		binary.BigEndian.PutUint64(c[16:], seq)
		copy(c[72:], "sha256")
		copy(c[168:], uuid)
		copy(c[208:], subsystem)
		binary.BigEndian.PutUint64(c[256:], uint64(i*luksArea))
		copy(c[4096:], `{"keyslots":{}}`)
		sum := sha256.Sum256(c)
		copy(c[448:], sum[:])
	}
	return dev
}

// GPT is the beginning of a disk with partitions of those names, each of one MiB, from the first MiB on.
func GPT(names ...string) []byte {
	disk := make([]byte, 64<<10)
	head := disk[512:]
	copy(head, "EFI PART")
	binary.LittleEndian.PutUint64(head[72:], 2)
	binary.LittleEndian.PutUint32(head[80:], 128)
	binary.LittleEndian.PutUint32(head[84:], 128)
	for i, name := range names {
		e := disk[1024+128*i:]
		e[0] = 1
		binary.LittleEndian.PutUint64(e[32:], uint64(i+1)<<11)
		for k, u := range utf16.Encode([]rune(name)) {
			binary.LittleEndian.PutUint16(e[56+2*k:], u)
		}
	}
	return disk
}
