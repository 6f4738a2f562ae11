package bootchain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// MountBoot is the command that has /boot mounted when it ends; systemd does not wait for it at boot.
func MountBoot() []string { return []string{"systemctl", "start", "boot.mount"} }

// Sizes below which a file was cut, whatever is in it.
const (
	minKernel   = 2 << 20
	minInitrd   = 1 << 20
	minNodePart = 200
)

// Check is the short look at the system at root, for those who have just written to /boot: GRUB's configuration, and
// for the entry that boots next the kernel, the generic initramfs and the per-node part, none of them missing or cut.
// Package bootcheck looks at everything.
func Check(root string) error {
	g, err := ReadGrub(root)
	if err != nil {
		return err
	}
	e := g.First()
	if err := e.LoadsNodePart(); err != nil {
		return err
	}
	return errors.Join(
		atLeast(root, e.Kernel, minKernel),
		atLeast(root, e.Initrds[0], minInitrd),
		atLeast(root, e.Initrds[1], minNodePart))
}

// ReadGrub reads the grub.cfg of the system at root.
func ReadGrub(root string) (Grub, error) {
	cfg, err := os.ReadFile(filepath.Join(root, GrubFile))
	if err != nil {
		return Grub{}, err
	}
	g, err := ParseGrub(cfg)
	if err != nil {
		return g, fmt.Errorf("%s: %w", GrubFile, err)
	}
	return g, nil
}

// LoadsNodePart returns nil when the entry loads the per-node part, and over the generic initramfs.
func (e GrubEntry) LoadsNodePart() error {
	if len(e.Initrds) != 2 || e.Initrds[1] != "/"+filepath.Base(NodePartFile) {
		return fmt.Errorf("%s: entry %q does not load %s behind the initramfs", GrubFile, e.Title, NodePartFile)
	}
	return nil
}

func atLeast(root, name string, bytes int64) error {
	path := filepath.Join("/boot", name)
	st, err := os.Stat(filepath.Join(root, path))
	if err != nil {
		return err
	}
	if st.Size() < bytes {
		return fmt.Errorf("%s has only %d bytes", path, st.Size())
	}
	return nil
}
