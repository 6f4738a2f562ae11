// Package initrdtest writes initramfs archives for tests.
package initrdtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Modes as in inode(7).
const (
	File    = 0o100644
	Program = 0o100755
	Dir     = 0o040755
	Link    = 0o120777
)

// Entry is one entry of a "newc" archive with its padding.
func Entry(name string, mode, ino, nlink int, data string) string {
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ino, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name)+1, 0) + name + "\x00"
	h += strings.Repeat("\x00", -len(h)&3) + data
	return h + strings.Repeat("\x00", -len(h)&3)
}

// Archive ends a row of entries.
func Archive(entries ...string) string {
	return strings.Join(entries, "") + Entry("TRAILER!!!", 0, 0, 1, "")
}

// Zstd compresses an archive.
func Zstd(t testing.TB, archive string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(archive), nil))
}

// Files is a compressed archive of files; content that begins with "→ " makes a symbolic link.
func Files(t testing.TB, files map[string]string) string {
	t.Helper()
	var entries []string
	for i, name := range slices.Sorted(maps.Keys(files)) {
		mode, data := Program, files[name]
		if target, ok := strings.CutPrefix(data, "→ "); ok {
			mode, data = Link, target
		}
		entries = append(entries, Entry(name, mode, i+1, 1, data))
	}
	return Zstd(t, Archive(entries...))
}
