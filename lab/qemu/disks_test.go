package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"popfleet/lab/machine"
)

// TestReplaceDisk: a machine that is off gets a blank disk, and a lab that starts anew knows it; one that runs keeps what
// it has.
func TestReplaceDisk(t *testing.T) {
	dir := t.TempDir()
	m := &Machine{dir: dir, config: machine.Config{Name: "m"}, state: state{Serials: []string{"A", "B"}}}
	if err := os.WriteFile(filepath.Join(dir, diskFile(1)), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		on     bool
		slot   int
		serial string
	}{"running": {true, 1, "C"}, "no such slot": {false, 2, "C"}, "there already": {false, 1, "A"}} {
		m.on = c.on
		if err := m.ReplaceDisk(c.slot, c.serial, 8<<20); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	m.on = false
	if err := m.ReplaceDisk(1, "C", 8<<20+5); err != nil {
		t.Fatal(err)
	}
	s, err := loadState(dir)
	if err != nil || !slices.Equal(s.Serials, []string{"A", "C"}) || !slices.Equal(m.Serials(), s.Serials) {
		t.Errorf("%v, %v, %v", s.Serials, m.Serials(), err)
	}
	if st, err := os.Stat(filepath.Join(dir, diskFile(1))); err != nil || st.Size() != 8<<20 {
		t.Errorf("%v, %v", st, err)
	}
}
