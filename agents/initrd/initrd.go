// Package initrd reads what a kernel would unpack at boot: one or more files, each a row of "newc" archives, plain or
// compressed, laid over each other in order (kernel: Documentation/driver-api/early-userspace/buffer-format.rst). It
// only reads, keeps the few files it was asked to, and believes no size it is told. Whatever it can't unpack to the
// end is an error: a kernel would stop there as well.
package initrd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Limits of one tree; a Debian initramfs unpacks to some tens of MiB and some hundreds of entries.
const (
	maxUnpacked = 1 << 30
	maxEntries  = 100_000
	maxKept     = 64 << 20
	maxLinks    = 16
)

// Entry is what lies at one path.
type Entry struct {
	Mode fs.FileMode
	Size int64
	Link string // target of a symbolic link
	Data []byte // of a kept regular file
}

// Tree is the file system that the kernel would begin with.
type Tree struct {
	// Keep names the regular files whose contents are wanted, by clean path without a leading slash; nil keeps none.
	Keep func(path string) bool

	entries  map[string]Entry
	unpacked int64
	kept     int64
}

// Add unpacks one initramfs file over what is there.
func (t *Tree) Add(r io.Reader) error {
	if t.entries == nil {
		t.entries = map[string]Entry{}
	}
	return t.segments(newSource(r), 0)
}

// Paths are all paths, sorted.
func (t *Tree) Paths() []string {
	paths := make([]string, 0, len(t.entries))
	for p := range t.entries {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Lookup finds what path means in the unpacked tree, through symbolic links on the way and at its end.
func (t *Tree) Lookup(p string) (Entry, bool) {
	p = rooted(p)
	for range maxLinks {
		at, rest, link := t.firstLink(p)
		if !link {
			e, ok := t.entries[p]
			return e, ok
		}
		target := t.entries[at].Link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(at), target)
		}
		p = rooted(path.Join(target, rest))
	}
	return Entry{}, false
}

// Regular is Lookup of a regular file that is not empty.
func (t *Tree) Regular(p string) (Entry, bool) {
	e, ok := t.Lookup(p)
	return e, ok && e.Mode.IsRegular() && e.Size > 0
}

// firstLink is the first symbolic link on the way along p, and what is behind it.
func (t *Tree) firstLink(p string) (at, rest string, link bool) {
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		if e, ok := t.entries[p[:i]]; ok && e.Mode&fs.ModeSymlink != 0 {
			return p[:i], strings.TrimPrefix(p[i:], "/"), true
		}
	}
	return "", "", false
}

// rooted is a clean path below the root, without its slash; nothing leaves the root.
func rooted(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

func (t *Tree) put(name string, e Entry) error {
	if len(t.entries) >= maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	name = rooted(name)
	if name == "" {
		return nil
	}
	if old, ok := t.entries[name]; ok && old.Mode.IsDir() && e.Mode.IsDir() {
		return nil
	}
	t.entries[name] = e
	return nil
}

func (t *Tree) wants(name string) bool { return t.Keep != nil && t.Keep(rooted(name)) }

func (t *Tree) charge(bytes int64, kept bool) error {
	t.unpacked += bytes
	if kept {
		t.kept += bytes
	}
	if t.unpacked > maxUnpacked || t.kept > maxKept {
		return errors.New("unpacks to more than any initramfs needs")
	}
	return nil
}
