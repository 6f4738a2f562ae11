package bootcheck

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// direct reads a device past the page cache: md writes to its members below it, so what is cached of a member may be
// older than what is on it.
type direct struct{ f *os.File }

// directAlign is the alignment of memory, place and size that satisfies every disk.
const directAlign = 4096

func openDirect(path string) (*direct, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // a file system that knows no such reading: a test's
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	return &direct{f}, nil
}

func (d *direct) Close() error { return d.f.Close() }

// ReadAt implements [io.ReaderAt].
func (d *direct) ReadAt(p []byte, off int64) (int, error) {
	first := off &^ (directAlign - 1)
	size := (off + int64(len(p)) - first + directAlign - 1) &^ (directAlign - 1)
	buf := aligned(int(size))
	n, err := d.f.ReadAt(buf, first)
	got := copy(p, buf[min(int64(n), off-first):n])
	if got == len(p) {
		return got, nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return got, err
}

func aligned(size int) []byte {
	buf := make([]byte, size+directAlign)
	skip := -int(uintptr(unsafe.Pointer(&buf[0]))) & (directAlign - 1)
	return buf[skip : skip+size]
}

// shifted is a reader that begins at an offset of another.
type shifted struct {
	r  io.ReaderAt
	by int64
}

// ReadAt implements [io.ReaderAt].
func (s shifted) ReadAt(p []byte, off int64) (int, error) { return s.r.ReadAt(p, off+s.by) }
