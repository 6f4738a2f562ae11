package rescue

import (
	"bytes"
	"fmt"
)

// archive is a cpio in the "new ASCII" format, which the kernel unpacks. Folders must be added before what is in them.
type archive struct {
	buf   bytes.Buffer
	inode int
}

// File types of st_mode, as the format wants them.
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

func (a *archive) dir(name string) { a.entry(name, modeDir|0o755, 0, 0, nil) }
func (a *archive) file(name string, perm uint32, data []byte) {
	a.entry(name, modeFile|perm, 0, 0, data)
}
func (a *archive) char(name string, major, minor uint32) {
	a.entry(name, modeChar|0o600, major, minor, nil)
}

func (a *archive) entry(name string, mode, rmajor, rminor uint32, data []byte) {
	a.inode++
	ino, links := a.inode, 1
	if name == trailer {
		ino, mode = 0, 0
	}
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		ino, mode, 0, 0, links, 0, len(data), 0, 0, rmajor, rminor, len(name)+1, 0)
	a.buf.WriteString(name)
	a.buf.WriteByte(0)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

const trailer = "TRAILER!!!"

// bytes ends the archive; its length is a multiple of four, so that another may follow it.
func (a *archive) bytes() []byte {
	a.entry(trailer, 0, 0, 0, nil)
	return a.buf.Bytes()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}
