package oplog

import (
	"errors"

	"github.com/cockroachdb/pebble/vfs"
)

var errInjected = errors.New("injected disk error")

// hookFS asks before each operation that changes the disk, sync included. Pebble's own errorfs leaves out the data syncs
// that the write-ahead log uses.
type hookFS struct {
	vfs.FS
	before func(op string) error
}

func (h hookFS) Create(name string) (vfs.File, error) {
	return h.open("create", func() (vfs.File, error) { return h.FS.Create(name) })
}

func (h hookFS) ReuseForWrite(from, to string) (vfs.File, error) {
	return h.open("reuse", func() (vfs.File, error) { return h.FS.ReuseForWrite(from, to) })
}

func (h hookFS) OpenDir(name string) (vfs.File, error) {
	d, err := h.FS.OpenDir(name)
	return &hookDir{d, h.before}, err
}

func (h hookFS) OpenReadWrite(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return h.open("open", func() (vfs.File, error) { return h.FS.OpenReadWrite(name, opts...) })
}

func (h hookFS) open(op string, f func() (vfs.File, error)) (vfs.File, error) {
	if err := h.before(op); err != nil {
		return nil, err
	}
	file, err := f()
	if err != nil {
		return nil, err
	}
	return &hookFile{file, h.before}, nil
}

func (h hookFS) Remove(name string) error {
	if err := h.before("remove"); err != nil {
		return err
	}
	return h.FS.Remove(name)
}

func (h hookFS) Rename(from, to string) error {
	if err := h.before("rename"); err != nil {
		return err
	}
	return h.FS.Rename(from, to)
}

func (h hookFS) Link(from, to string) error {
	if err := h.before("link"); err != nil {
		return err
	}
	return h.FS.Link(from, to)
}

type hookFile struct {
	vfs.File
	before func(op string) error
}

func (f *hookFile) Write(b []byte) (int, error) {
	if err := f.before("write"); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *hookFile) Sync() error { return f.sync(f.File.Sync) }

func (f *hookFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *hookFile) SyncTo(length int64) (bool, error) {
	if err := f.before("sync"); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

func (f *hookFile) sync(do func() error) error {
	if err := f.before("sync"); err != nil {
		return err
	}
	return do()
}

type hookDir struct {
	vfs.File
	before func(op string) error
}

func (d *hookDir) Sync() error {
	if err := d.before("sync of a directory"); err != nil {
		return err
	}
	return d.File.Sync()
}
