package bootchain

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// MountBoot is the command that has /boot mounted when it ends; systemd does not wait for it at boot.
func MountBoot() []string { return []string{"systemctl", "start", "boot.mount"} }

// Check tells whether the system at root would come back from a reboot as far as files can tell: GRUB's configuration,
// and for its first entry the kernel, the generic initramfs and the per-node part, none of them empty or cut.
func Check(root string) error {
	cfg, err := os.ReadFile(filepath.Join(root, "/boot/grub/grub.cfg"))
	if err != nil {
		return err
	}
	kernel, initrds, err := firstEntry(cfg)
	if err != nil {
		return err
	}
	var errs []error
	errs = append(errs, atLeast(root, kernel, 2<<20))
	for _, i := range initrds {
		size := int64(1 << 20)
		if i == filepath.Base(NodePartFile) {
			size = 200
		}
		errs = append(errs, atLeast(root, i, size))
	}
	return errors.Join(errs...)
}

var (
	linuxLine  = regexp.MustCompile(`(?m)^\s*linux /(\S+)`)
	initrdLine = regexp.MustCompile(`(?m)^\s*initrd (.+)$`)
)

func firstEntry(cfg []byte) (kernel string, initrds []string, err error) {
	l, i := linuxLine.FindSubmatch(cfg), initrdLine.FindSubmatch(cfg)
	if l == nil || i == nil {
		return "", nil, errors.New("/boot/grub/grub.cfg has no bootable entry")
	}
	for _, f := range bytes.Fields(i[1]) {
		initrds = append(initrds, string(bytes.TrimPrefix(f, []byte("/"))))
	}
	if len(initrds) != 2 || initrds[1] != filepath.Base(NodePartFile) {
		return "", nil, fmt.Errorf("/boot/grub/grub.cfg does not load %s behind the initramfs", NodePartFile)
	}
	return string(l[1]), initrds, nil
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
