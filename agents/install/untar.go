package install

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// untar unpacks a tar stream below dir. The bytes are not yet verified when this runs, so every name goes through
// os.Root: nothing outside dir is reached by "..", by absolute names or through a link in the archive. Device nodes are
// left out: the kernel's devtmpfs makes them.
func untar(dir *os.Root, in io.Reader) error {
	t := tar.NewReader(in)
	var dirs []*tar.Header // their times are set last: making entries changes them
	buf := make([]byte, 256<<10)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := untarOne(dir, h, t, buf); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
	}
	for _, h := range dirs {
		if err := dir.Chtimes(clean(h.Name), h.ModTime, h.ModTime); err != nil {
			return err
		}
	}
	return nil
}

func clean(name string) string { return path.Clean(strings.TrimLeft(name, "/")) }

func untarOne(dir *os.Root, h *tar.Header, body io.Reader, buf []byte) error {
	name := clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := dir.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return owned(dir, name, h)
	case tar.TypeReg:
		return untarFile(dir, name, h, body, buf)
	case tar.TypeSymlink:
		if err := dir.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return dir.Lchown(name, h.Uid, h.Gid)
	case tar.TypeLink:
		return dir.Link(clean(h.Linkname), name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	}
	return fmt.Errorf("entry of unknown type %q", h.Typeflag)
}

func untarFile(dir *os.Root, name string, h *tar.Header, body io.Reader, buf []byte) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// a plain write loop: os.File would try splice and copy_file_range first, in vain
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, body, buf); err != nil {
		return err
	}
	// owner before mode: chown takes setuid away. Nearly every file is root's already; a call saved is a call saved on an
	// emulated machine, where this is most of the time.
	if h.Uid != 0 || h.Gid != 0 {
		err = f.Chown(h.Uid, h.Gid)
	}
	err = errors.Join(err, f.Chmod(h.FileInfo().Mode()), xattrs(f, h), times(f, h.ModTime))
	return errors.Join(err, f.Close())
}

func times(f *os.File, t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Futimes(int(f.Fd()), []unix.Timeval{tv, tv})
}

// xattrs are file capabilities and ACLs; tar keeps them as PAX records.
func xattrs(f *os.File, h *tar.Header) error {
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			if err := unix.Fsetxattr(int(f.Fd()), name, []byte(v), 0); err != nil {
				return fmt.Errorf("attribute %s: %w", name, err)
			}
		}
	}
	return nil
}

func owned(dir *os.Root, name string, h *tar.Header) error {
	return errors.Join(dir.Lchown(name, h.Uid, h.Gid), dir.Chmod(name, h.FileInfo().Mode()))
}
