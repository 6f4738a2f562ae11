package qemu

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"popfleet/lab/machine"
	"popfleet/lab/rescue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config() machine.Config {
	return machine.Config{Name: "42", Address: netip.MustParseAddr("198.18.0.42"), MAC: net.HardwareAddr{0x96, 0, 0, 0, 0, 42}}
}

func TestArgs(t *testing.T) {
	b := &Backend{accel: "tcg", rescue: rescue.Rescue{Kernel: "/k", Initrd: "/i", Root: "/r"}}
	two := config()
	two.Disks, two.Firmware, two.MemoryMB = 2, "uefi", 2048
	sata := two
	sata.DiskKind, sata.Firmware = "sata", "bios"
	bare := sata
	bare.Bare = true
	tests := map[string]struct {
		config   machine.Config
		boot     machine.Boot
		has, not []string
	}{
		"disk": {config(), machine.Boot{}, []string{"-no-reboot", "mac=96:00:00:00:00:2a", "ifname=tap42", "serial=S0,bootindex=1", "-m 1024"},
			[]string{"-kernel", "pflash", "disk1"}},
		"rescue":              {config(), machine.Boot{Rescue: true}, []string{"-kernel /k", "-initrd initrd", "readonly=on", "file=/r", "console=ttyS0"}, nil},
		"sata":                {sata, machine.Boot{}, []string{"virtio-scsi-pci,id=scsi", "drive=disk1,serial=S1,wwn=0x5000c50", "bootindex=2"}, []string{"nvme", "-S"}},
		"bare":                {bare, machine.Boot{SwapDisks: true}, []string{"e1000e,netdev", "ide-hd,bus=ide.0,model=LAB SSD,drive=disk1,serial=S1", "ide-hd,bus=ide.1"}, []string{"scsi", "virtio-net"}},
		"missing":             {two, machine.Boot{MissingDisks: []int{0}}, []string{"serial=S1,bootindex=1"}, []string{"disk0"}},
		"swapped":             {two, machine.Boot{SwapDisks: true}, []string{"serial=S1,bootindex=1", "serial=S0,bootindex=2"}, nil},
		"hangs":               {two, machine.Boot{Hangs: true}, []string{" -S"}, nil},
		"late":                {two, machine.Boot{Rescue: true, Late: 1}, []string{" -S"}, nil},
		"uefi with two disks": {two, machine.Boot{}, []string{"file=vars.fd", "serial=S0,bootindex=1", "serial=S1,bootindex=2", "-m 2048"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newState(tt.config)
			for i := range s.Serials {
				s.Serials[i] = "S" + strconv.Itoa(i)
			}
			line := strings.Join(b.args(tt.config, s, tt.boot), " ")
			for _, want := range tt.has {
				if !strings.Contains(line, want) {
					t.Errorf("no %q in %s", want, line)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(line, not) {
					t.Errorf("%q in %s", not, line)
				}
			}
		})
	}
}

func TestSerialsAreNeverTwice(t *testing.T) {
	c := config()
	c.Disks = 2
	a, b := newState(c), newState(c)
	all := slices.Concat(a.Serials, b.Serials)
	slices.Sort(all)
	if len(all) != 4 || len(slices.Compact(all)) != 4 {
		t.Errorf("%q", all)
	}
}

func TestTapNameFits(t *testing.T) {
	for _, name := range []string{"1", "123456789012", strings.Repeat("9", 40)} {
		if tap := tapName(name); len(tap) > 15 || !strings.HasPrefix(tap, "tap") {
			t.Errorf("%s: %s", name, tap)
		}
	}
}

func TestFurnish(t *testing.T) {
	dir := t.TempDir()
	c := config()
	c.DiskGB, c.Disks = 3, 2
	want := newState(c)
	if err := furnish(dir, c, want); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		info, err := os.Stat(filepath.Join(dir, diskFile(i)))
		if err != nil || info.Size()%(1<<20) != 0 || info.Size() < 29e8 {
			t.Errorf("disk %d: %v, %v", i, info, err)
		}
	}
	got, err := loadState(dir)
	if err != nil || !slices.Equal(got.Serials, want.Serials) || got.Tap != want.Tap || got.On {
		t.Errorf("%+v, %v", got, err)
	}
	if err := furnish(dir, c, want); err == nil {
		t.Error("a disk that exists was made again")
	}
}

func TestCheckConfig(t *testing.T) {
	tests := map[string]func(*machine.Config){
		"name":     func(c *machine.Config) { c.Name = "../x" },
		"address":  func(c *machine.Config) { c.Address = netip.Addr{} },
		"mac":      func(c *machine.Config) { c.MAC = nil },
		"firmware": func(c *machine.Config) { c.Firmware = "coreboot" },
		"disks":    func(c *machine.Config) { c.Disks = 3 },
		"kind":     func(c *machine.Config) { c.DiskKind = "floppy" },
		"network":  func(c *machine.Config) { c.Net4 = netip.MustParsePrefix("198.19.0.0/26") },
	}
	if err := checkConfig(config()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range tests {
		c := config()
		spoil(&c)
		if checkConfig(c) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestRunningIn holds that a stale pidfile, whose number another process has by now, is never taken for a machine.
func TestRunningIn(t *testing.T) {
	dir := t.TempDir()
	if _, ok := runningIn(dir); ok {
		t.Fatal("no pidfile, yet running")
	}
	mine := exec.Command("sleep", "60")
	mine.Dir = dir
	other := exec.Command("sleep", "60")
	for _, c := range []*exec.Cmd{mine, other} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer c.Wait()
		defer c.Process.Kill()
	}
	for _, tt := range []struct {
		pid  string
		want bool
	}{{strconv.Itoa(mine.Process.Pid), true}, {strconv.Itoa(other.Process.Pid), false}, {"1", false}, {"rubbish", false}} {
		if err := os.WriteFile(filepath.Join(dir, pidFile), []byte(tt.pid+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := runningIn(dir); ok != tt.want {
			t.Errorf("pidfile %s: running %v", tt.pid, ok)
		}
	}
}
