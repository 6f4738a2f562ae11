package bootchain

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// cpioWriter writes an initramfs archive in the "newc" format (kernel: Documentation/driver-api/early-userspace/
// buffer-format.rst): 110 bytes of hex header, name with NUL, data, each padded to four bytes.
type cpioWriter struct {
	w   io.Writer
	n   int
	ino int
	err error
}

const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

func (c *cpioWriter) dir(name string, perm uint32) { c.entry(name, modeDir|perm, nil) }

func (c *cpioWriter) file(name string, perm uint32, data []byte) {
	c.entry(name, modeFile|perm, data)
}

// close writes the trailer that ends an archive; the kernel then looks for a further one behind it.
func (c *cpioWriter) close() error {
	c.ino = -1
	c.entry("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode uint32, data []byte) {
	c.ino++
	nlink := 1
	if mode&modeDir == modeDir {
		nlink = 2
	}
	// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	c.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name)+1, 0))
	c.write([]byte(name + "\x00"))
	c.pad()
	c.write(data)
	c.pad()
}

func (c *cpioWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	_, c.err = c.w.Write(b)
	c.n += len(b)
}

func (c *cpioWriter) pad() { c.write(make([]byte, -c.n&3)) }

// parents are the folders above a path, outermost first.
func parents(path string) []string {
	var out []string
	for i, r := range path {
		if r == '/' {
			out = append(out, path[:i])
		}
	}
	return out
}

// archive is a newc archive of files with their folders. Existing folders of the initramfs keep their contents.
func archive(files []file) ([]byte, error) {
	var b bytes.Buffer
	c := &cpioWriter{w: &b}
	seen := map[string]bool{}
	for _, f := range files {
		for _, d := range parents(f.path) {
			if !seen[d] {
				seen[d] = true
				c.dir(d, 0o755)
			}
		}
		c.file(strings.TrimPrefix(f.path, "/"), f.perm, f.data)
	}
	if err := c.close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

type file struct {
	path string
	perm uint32
	data []byte
}
