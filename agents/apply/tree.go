package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// tree is the machine's file system below a root that no path can leave. Paths are absolute as in the spec.
type tree struct{ *os.Root }

func openTree(root string) (*tree, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	return &tree{r}, nil
}

// rel turns an absolute path into one below the root.
func rel(p string) string { return strings.TrimPrefix(p, "/") }

// meta is what a directory entry is, without following it.
type meta struct {
	exists   bool
	kind     fs.FileMode // type bits
	mode     uint32      // permission bits
	uid, gid int
	size     int64
}

func (t *tree) look(p string) (meta, error) {
	info, err := t.Lstat(rel(p))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return meta{}, nil
	}
	if err != nil {
		return meta{}, err
	}
	m := meta{exists: true, kind: info.Mode().Type(), mode: uint32(info.Mode().Perm()), size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		m.uid, m.gid, m.mode = int(st.Uid), int(st.Gid), st.Mode&0o7777
	}
	return m, nil
}

const tmpSuffix = ".fleet-new"

// replace puts content at p in one step: a reader sees the old file or the new one, and a crash leaves one of the two.
// Owner and mode are right before the new file has its name, so a secret is never readable in between.
func (t *tree) replace(p string, content []byte, mode uint32, uid, gid int) error {
	if err := t.parents(p); err != nil {
		return err
	}
	tmp := rel(path.Join(path.Dir(p), "."+path.Base(p)+tmpSuffix))
	if err := t.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // left by an apply that was killed
	}
	if err := t.writeNew(tmp, content, mode, uid, gid); err != nil {
		_ = t.Remove(tmp) // the error that matters is the first
		return err
	}
	if err := t.Rename(tmp, rel(p)); err != nil {
		return err
	}
	return t.syncDir(path.Dir(p))
}

func (t *tree) writeNew(name string, content []byte, mode uint32, uid, gid int) error {
	f, err := t.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(mode).Perm()); err != nil {
		return err
	}
	return f.Sync()
}

// parents makes the directories above p, root:root 0755 as the spec promises. The mode is set by name: the agent runs
// with the narrow umask of its bootstrap.
func (t *tree) parents(p string) error {
	dir := rel(path.Dir(p))
	if dir == "" || dir == "." {
		return nil
	}
	for i := range len(dir) + 1 {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		err := t.Mkdir(dir[:i], 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := t.Chmod(dir[:i], 0o755); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes a rename in dir last through a power cut.
func (t *tree) syncDir(dir string) error {
	name := rel(dir)
	if name == "" {
		name = "."
	}
	d, err := t.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// link points the symlink at p to target in one step.
func (t *tree) link(target, p string) error {
	tmp := rel(p) + tmpSuffix
	if err := t.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.Symlink(target, tmp); err != nil {
		return err
	}
	if err := t.Rename(tmp, rel(p)); err != nil {
		return err
	}
	return t.syncDir(path.Dir(p))
}

// lock takes the advisory lock at p until the returned function is called or the process ends.
func (t *tree) lock(p string) (func(), error) {
	if err := t.parents(p); err != nil {
		return nil, err
	}
	f, err := t.OpenFile(rel(p), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s is held; wait for it to end", errLocked, p)
	}
	return func() { f.Close() }, nil
}

// links counts the names of the file.
func (t *tree) links(name string) uint64 {
	info, err := t.Lstat(name)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Nlink) //nolint:unconvert // 32 bits wide on some architectures
}
