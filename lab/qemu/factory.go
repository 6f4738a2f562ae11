package qemu

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"popfleet/lab/machine"
)

const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// Defaults of a machine whose configuration leaves them open.
const (
	defaultMemoryMB = 1024
	defaultDiskGB   = 20
)

// newState gives a machine its serials and its tap. Serials are random: a machine made anew under an old name has other
// disks, as at a provider.
func newState(c machine.Config) state {
	s := state{Tap: tapName(c.Name), Made: time.Now().UTC()}
	for range max(c.Disks, 1) {
		var b [6]byte
		rand.Read(b[:])
		s.Serials = append(s.Serials, "LAB"+strings.ToUpper(hex.EncodeToString(b[:])))
	}
	return s
}

// tapName fits the kernel's 15 bytes.
func tapName(machine string) string {
	if len(machine) <= 12 {
		return "tap" + machine
	}
	sum := sha256.Sum256([]byte(machine))
	return "tap" + hex.EncodeToString(sum[:6])
}

// furnish puts a machine's files into its folder.
func furnish(dir string, c machine.Config, s state) error {
	gb := c.DiskGB
	if gb == 0 {
		gb = defaultDiskGB
	}
	for i := range s.Serials {
		if err := sparseFile(filepath.Join(dir, diskFile(i)), int64(gb)*1e9&^(1<<20-1)); err != nil {
			return err
		}
	}
	if c.Firmware == "uefi" {
		vars, err := os.ReadFile(ovmfVars)
		if err != nil {
			return fmt.Errorf("%w: apt-get install ovmf", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
			return err
		}
	}
	return s.save(dir)
}

func sparseFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

func diskFile(i int) string { return fmt.Sprintf("disk%d.raw", i) }
