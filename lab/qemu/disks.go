package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// ReplaceDisk puts a blank disk into a slot of a machine that is off, in the place of the one that is there, which is
// gone for good.
func (m *Machine) ReplaceDisk(slot int, serial string, sizeBytes int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.on:
		return fmt.Errorf("machine %s runs: switch it off first", m.config.Name)
	case slot < 0 || slot >= len(m.state.Serials):
		return fmt.Errorf("slot %d: the machine has %d disks", slot, len(m.state.Serials))
	case slices.Contains(m.state.Serials, serial):
		return fmt.Errorf("a disk %s is there already", serial)
	}
	file := filepath.Join(m.dir, diskFile(slot))
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := sparseFile(file, sizeBytes&^(1<<20-1)); err != nil {
		return err
	}
	next := m.state
	next.Serials = slices.Clone(m.state.Serials)
	next.Serials[slot] = serial
	if err := next.save(m.dir); err != nil {
		return err
	}
	m.state = next
	return nil
}
