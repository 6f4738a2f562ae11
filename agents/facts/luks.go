package facts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"popfleet/agents/disk"
)

// RootLUKS returns nil when / really lies on an opened LUKS2 device: by the kernel's own account of the device under
// /, and by the header on the device below that. No configuration file is believed.
func (h Host) RootLUKS() error {
	_, err := h.RootDevice()
	return err
}

// RootDevice is the block device that holds the LUKS2 header under /.
func (h Host) RootDevice() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(h.path("/"), &st); err != nil {
		return "", err
	}
	return h.luksUnder(unix.Major(st.Dev), unix.Minor(st.Dev))
}

func (h Host) luksUnder(major, minor uint32) (string, error) {
	dir := h.path(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	uuid, err := os.ReadFile(filepath.Join(dir, "dm/uuid"))
	if err != nil {
		return "", errors.New("/ is not on a device-mapper device")
	}
	// CRYPT-LUKS2-<uuid of the header without dashes>-<name>
	rest, ok := strings.CutPrefix(strings.TrimSpace(string(uuid)), "CRYPT-LUKS2-")
	want, _, _ := strings.Cut(rest, "-")
	if !ok || want == "" {
		return "", fmt.Errorf("/ is on %s, which is no LUKS2 device", strings.TrimSpace(string(uuid)))
	}
	slaves, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil || len(slaves) != 1 {
		return "", fmt.Errorf("the device under / has %d devices below it, not one", len(slaves))
	}
	dev := "/dev/" + slaves[0].Name()
	f, err := os.Open(h.path(dev))
	if err != nil {
		return "", fmt.Errorf("read the LUKS2 header: %w", err)
	}
	defer f.Close()
	header, ok := disk.ReadLUKS(f)
	if !ok || strings.ReplaceAll(header.UUID, "-", "") != want {
		return "", fmt.Errorf("%s carries no LUKS2 header that fits the device under /", dev)
	}
	return dev, nil
}

// OnDisk tells whether / or any other mounted file system lies on the disk (its name below /sys/block), directly or
// through device mapper and md.
func (h Host) OnDisk(diskName string) (bool, error) {
	mounts, err := os.ReadFile(h.path("/proc/self/mountinfo"))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[2], "0:") { // 0: no block device
			continue
		}
		if h.below(h.path("/sys/dev/block/"+f[2]), diskName, 0) {
			return true, nil
		}
	}
	return false, nil
}

// below walks from a block device down to the disks it is made of.
func (h Host) below(dir, diskName string, depth int) bool {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || depth > 8 {
		return false
	}
	if filepath.Base(real) == diskName || filepath.Base(filepath.Dir(real)) == diskName {
		return true
	}
	slaves, _ := os.ReadDir(filepath.Join(real, "slaves"))
	for _, s := range slaves {
		if h.below(filepath.Join(real, "slaves", s.Name()), diskName, depth+1) {
			return true
		}
	}
	return false
}
