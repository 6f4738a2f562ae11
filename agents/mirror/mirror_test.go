package mirror

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"popfleet/agents"
)

// machine is a /sys with two disks and the mirrors of a node on them, as Linux 6.1 shows them.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	m := machine{t, t.TempDir()}
	for i := range 2 {
		m.disk(fmt.Sprintf("nvme%dn1", i), fmt.Sprintf("SER%d", i))
	}
	m.array("md126", 3)
	m.array("md127", 4)
	return m
}

func (m machine) put(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.root, "sys/block", path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) remove(paths ...string) {
	for _, p := range paths {
		if err := os.RemoveAll(filepath.Join(m.root, "sys/block", p)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m machine) disk(name, serial string) {
	m.put(name+"/device/serial", serial+"   \n")
	for n, label := range map[int]string{3: "fleet-boot", 4: "fleet-root"} {
		part := fmt.Sprintf("%sp%d", name, n)
		m.put(name+"/"+part+"/uevent", "MAJOR=259\nDEVNAME="+part+"\nDEVTYPE=partition\nPARTN=4\nPARTNAME="+label+"\n")
	}
}

func (m machine) array(device string, partition int) {
	for attr, value := range map[string]string{"array_state": "clean", "raid_disks": "2", "sync_action": "idle", "sync_completed": "none"} {
		m.put(device+"/md/"+attr, value+"\n")
	}
	for i := range 2 {
		m.put(fmt.Sprintf("%s/md/dev-nvme%dn1p%d/state", device, i, partition), "in_sync\n")
	}
}

// lose takes the second disk away, as udev does when it is unplugged.
func (m machine) lose() {
	m.remove("nvme1n1", "md126/md/dev-nvme1n1p3", "md127/md/dev-nvme1n1p4")
}

func (m machine) watch(file string) *Watch {
	return &Watch{Host: Host{m.root}, File: file, Log: slog.New(slog.DiscardHandler)}
}

func TestNoMirrors(t *testing.T) {
	m := machine{t, t.TempDir()}
	m.disk("nvme0n1", "SER0")
	if got := m.watch("").Mirrors(); got != nil {
		t.Errorf("%+v", got)
	}
	if _, ok := (Host{m.root}).Array("nvme0n1"); ok {
		t.Error("a disk passes as an array")
	}
}

func TestWhole(t *testing.T) {
	got := newMachine(t).watch("").Mirrors()
	if len(got) != 2 || got[0].Name != "fleet-boot" || got[1].Name != "fleet-root" || got[1].Device != "md127" {
		t.Fatalf("%+v", got)
	}
	for _, m := range got {
		if m.Degraded || m.WantedMembers != 2 || m.ActiveMembers != 2 || len(m.Members) != 2 || m.Members[1].Serial != "SER1" || m.Gone != nil || m.ProgressPercent != nil {
			t.Errorf("%+v", m)
		}
	}
}

// TestDegraded: what the arrays' attributes say, and what is made of it.
func TestDegraded(t *testing.T) {
	for name, c := range map[string]struct {
		spoil    func(machine)
		degraded bool
		active   int
		gone     string
		percent  float64 // -1: none
	}{
		"gone":       {machine.lose, true, 1, "SER1", -1},
		"faulty":     {func(m machine) { m.put("md127/md/dev-nvme1n1p4/state", "faulty\n") }, true, 1, "SER1", -1},
		"blocked":    {func(m machine) { m.put("md127/md/dev-nvme1n1p4/state", "faulty,want_replacement\n") }, true, 1, "SER1", -1},
		"came back":  {rebuilt("nvme1n1"), true, 1, "", 25},
		"write-most": {func(m machine) { m.put("md127/md/dev-nvme1n1p4/state", "in_sync,write_mostly\n") }, false, 2, "", -1},
		"checked": {func(m machine) {
			m.put("md127/md/sync_action", "check\n")
			m.put("md127/md/sync_completed", "500 / 1000\n")
		}, false, 2, "", 50},
		"never started": {func(m machine) { m.put("md127/md/array_state", "inactive\n"); m.put("md127/md/raid_disks", "\n") }, true, 2, "", -1},
		"nonsense": {func(m machine) {
			m.put("md127/md/raid_disks", "-3\n")
			m.put("md127/md/sync_completed", "9 / 0\n")
		}, true, 2, "", -1},
		"a third is wanted": {func(m machine) { m.put("md127/md/raid_disks", "3 (2)\n") }, true, 2, "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			w := m.watch("")
			w.Mirrors()
			c.spoil(m)
			got := w.Mirrors()[1]
			percent := -1.0
			if got.ProgressPercent != nil {
				percent = *got.ProgressPercent
			}
			if got.Degraded != c.degraded || got.ActiveMembers != c.active || strings.Join(got.Gone, " ") != c.gone || percent != c.percent {
				t.Errorf("%+v, %v %%", got, percent)
			}
		})
	}
}

// rebuilt has a disk take the second one's place and be written.
func rebuilt(name string) func(machine) {
	return func(m machine) {
		m.put("md127/md/dev-"+name+"p4/state", "spare\n")
		m.put("md127/md/sync_action", "recover\n")
		m.put("md127/md/sync_completed", "250 / 1000\n")
	}
}

// TestRemembered: the serial of a disk that went while the machine was off is known from the file, and is forgotten when
// another disk has taken its place.
func TestRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mirrors.json")
	m := newMachine(t)
	m.watch(file).Mirrors()
	m.lose()
	if got := m.watch(file).Mirrors(); !slices.Equal(got[0].Gone, []string{"SER1"}) || !slices.Equal(got[1].Gone, []string{"SER1"}) {
		t.Errorf("after a boot without the disk: %+v", got)
	}
	m.disk("nvme2n1", "SER2")
	rebuilt("nvme2n1")(m)
	if got := m.watch(file).Mirrors()[1]; !slices.Equal(got.Gone, []string{"SER1"}) || got.Members[1].Serial != "SER2" {
		t.Errorf("while the new one is written: %+v", got)
	}
	m.put("md127/md/dev-nvme2n1p4/state", "in_sync\n")
	if got := m.watch(file).Mirrors()[1]; got.Degraded || got.Gone != nil {
		t.Errorf("%+v", got)
	}
	m.remove("nvme2n1", "md127/md/dev-nvme2n1p4")
	if got := m.watch(file).Mirrors()[1]; !slices.Equal(got.Gone, []string{"SER2"}) {
		t.Errorf("%+v", got)
	}
}

// TestNothingRemembered: a node that was degraded before it was ever asked says so, without a name.
func TestNothingRemembered(t *testing.T) {
	m := newMachine(t)
	m.lose()
	file := filepath.Join(t.TempDir(), "mirrors.json")
	for _, text := range []string{"", "null", "[1]", `{"fleet-root":`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := m.watch(file).Mirrors()[1]; !got.Degraded || got.Gone != nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// TestLogged: once when it degrades, once when it is whole, however often it is looked at.
func TestLogged(t *testing.T) {
	m, said := newMachine(t), &bytes.Buffer{}
	w := m.watch("")
	w.Log = slog.New(slog.NewTextHandler(said, nil))
	look := func() { w.Mirrors(); w.Mirrors() }
	look()
	m.put("md127/md/dev-nvme1n1p4/state", "faulty\n")
	look()
	m.put("md127/md/dev-nvme1n1p4/state", "in_sync\n")
	look()
	if n := strings.Count(said.String(), "\n"); n != 2 || !strings.Contains(said.String(), "SER1") {
		t.Errorf("%d lines: %s", n, said)
	}
}

// FuzzAttributes: the kernel's text never becomes a count or a progress that can't be.
func FuzzAttributes(f *testing.F) {
	for _, s := range []string{"none", "delayed", "12 / 34", "18446744073709551615 / 18446744073709551615", "9 / 0", "2", "3 (2)", "-1", "in_sync,faulty"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p := Percent(s); p != nil && (math.IsNaN(*p) || *p < 0 || *p > 100) {
			t.Errorf("%q is %v %%", s, *p)
		}
		if n := count(s); n < 0 || n > maxMembers {
			t.Errorf("%q is %d members", s, n)
		}
	})
}

// FuzzRead: whatever lies in /sys, the whole can be sent.
func FuzzRead(f *testing.F) {
	f.Add("2", "none", "in_sync", "PARTNAME=fleet-root")
	f.Add("2\n", "1 / 2", "faulty,spare", "PARTNAME=\nPARTNAME=\x00")
	f.Fuzz(func(t *testing.T, wanted, completed, state, uevent string) {
		m := machine{t, t.TempDir()}
		m.put("md0/md/raid_disks", wanted)
		m.put("md0/md/sync_completed", completed)
		m.put("md0/md/dev-sda1/state", state)
		m.put("sda/sda1/uevent", uevent)
		got := m.watch("").Mirrors()
		if len(got) != 1 || !got[0].Degraded && got[0].ActiveMembers < 1 {
			t.Errorf("%+v", got)
		}
		text, err := json.Marshal(got)
		var back []agents.Mirror
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
