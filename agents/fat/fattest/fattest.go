// Package fattest makes small FAT file systems for tests. It writes what mkfs.vfat and the kernel would, as far as
// package fat reads it: one table, short names, one level of clusters of 512 bytes.
package fattest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

const sector = 512

// Clusters that make a file system the one or the other.
const (
	FAT16 = 4200
	FAT32 = 66000
)

type builder struct {
	f         *os.File
	wide      bool
	fatBytes  int64
	dataAt    int64
	next      uint32
	failed    error
	dirs      map[string][]byte
	dirOrder  []string
	rootStart uint32
}

// Write makes a file system of FAT16 or FAT32 clusters with the files, at path. Names are 8.3.
func Write(t testing.TB, at string, clusters int, files map[string][]byte) {
	t.Helper()
	f, err := os.Create(at)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := &builder{f: f, wide: clusters >= 65525, next: 2, dirs: map[string][]byte{"": nil}}
	width := int64(2)
	if b.wide {
		width = 4
	}
	b.fatBytes = (int64(clusters+2)*width + sector - 1) / sector * sector
	b.dataAt = sector + b.fatBytes
	rootEntries := 0
	if !b.wide {
		rootEntries = 512
		b.dataAt += 512 * 32
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b.mkdirs(path.Dir(name))
		b.entry(path.Dir(name), path.Base(name), 0x20, b.store(files[name]), len(files[name]))
	}
	b.finish()
	b.bootSector(clusters, rootEntries)
	if err := f.Truncate(b.dataAt + int64(clusters)*sector); b.failed != nil || err != nil {
		t.Fatal(b.failed, err)
	}
}

func (b *builder) write(data []byte, at int64) {
	if _, err := b.f.WriteAt(data, at); b.failed == nil {
		b.failed = err
	}
}

func (b *builder) link(cluster, to uint32) {
	if b.wide {
		b.write(binary.LittleEndian.AppendUint32(nil, to), sector+int64(cluster)*4)
		return
	}
	b.write(binary.LittleEndian.AppendUint16(nil, uint16(to)), sector+int64(cluster)*2)
}

// store writes data as a chain of every second cluster, so that reading on is not enough, and returns its first.
func (b *builder) store(data []byte) uint32 {
	if len(data) == 0 {
		return 0
	}
	first := b.next
	for ; len(data) > sector; data = data[sector:] {
		b.write(data[:sector], b.dataAt+int64(b.next-2)*sector)
		b.link(b.next, b.next+2)
		b.next += 2
	}
	b.write(data, b.dataAt+int64(b.next-2)*sector)
	b.link(b.next, 0x0fffffff)
	b.next += 2
	return first
}

func (b *builder) mkdirs(dir string) {
	if dir == "." {
		return
	}
	if _, ok := b.dirs[dir]; ok {
		return
	}
	b.mkdirs(path.Dir(dir))
	b.dirs[dir] = nil
	b.dirOrder = append(b.dirOrder, dir)
}

func (b *builder) entry(dir, name string, attr byte, first uint32, size int) {
	if dir == "." {
		dir = ""
	}
	base, ext, _ := strings.Cut(name, ".")
	e := append(fmt.Appendf(nil, "%-8s%-3s", base, ext), make([]byte, 21)...)
	e[11] = attr
	binary.LittleEndian.PutUint16(e[20:], uint16(first>>16))
	binary.LittleEndian.PutUint16(e[26:], uint16(first))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	b.dirs[dir] = append(b.dirs[dir], e...)
}

// finish writes the directories, inner ones first, since an entry needs to know where its directory begins.
func (b *builder) finish() {
	for _, dir := range slices.Backward(b.dirOrder) {
		dots := fmt.Appendf(nil, "%-11s\x10%20s%-11s\x10%20s", ".", "", "..", "")
		b.entry(path.Dir(dir), path.Base(dir), 0x10, b.store(append(dots, b.dirs[dir]...)), 0)
	}
	label := append([]byte("FLEET-ESP  \x08"), make([]byte, 20)...)
	root := append(label, b.dirs[""]...)
	if b.wide {
		b.rootStart = b.store(root)
		return
	}
	b.write(root, sector+b.fatBytes)
}

func (b *builder) bootSector(clusters, rootEntries int) {
	s := make([]byte, sector)
	le := binary.LittleEndian
	le.PutUint16(s[11:], sector)
	s[13], s[16] = 1, 1
	le.PutUint16(s[14:], 1)
	le.PutUint16(s[17:], uint16(rootEntries))
	le.PutUint32(s[32:], uint32(b.dataAt/sector)+uint32(clusters))
	if b.wide {
		le.PutUint32(s[36:], uint32(b.fatBytes/sector))
		le.PutUint32(s[44:], b.rootStart)
		copy(s[82:], "FAT32   ")
	} else {
		le.PutUint16(s[22:], uint16(b.fatBytes/sector))
		copy(s[54:], "FAT16   ")
	}
	s[510], s[511] = 0x55, 0xaa
	b.write(s, 0)
}
