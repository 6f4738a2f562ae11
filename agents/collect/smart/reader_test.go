package smart

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popfleet/agents"
	"popfleet/playbooks/spec"
)

type fakeDisk struct {
	log    NVMeLog
	err    error
	opens  int
	closed int
}

func (d *fakeDisk) Read(into *Reading) error {
	if d.err != nil {
		return d.err
	}
	l := d.log
	into.NVMe = &l
	return nil
}
func (d *fakeDisk) Close() error { d.closed++; return nil }

// bench is a Reader over hand-made disks.
type bench struct {
	Reader
	disks   map[string]*fakeDisk // by path
	openErr error
	block   []string
	lists   int
}

func newBench(paths ...string) *bench {
	b := &bench{disks: map[string]*fakeDisk{}, block: paths}
	for _, p := range paths {
		b.disks[p] = &fakeDisk{log: NVMeLog{PercentUsed: 1}}
	}
	b.Reader = Reader{
		names: func() []string { return b.block },
		list: func() (out []spec.Disk, err error) {
			b.lists++
			for _, p := range b.block {
				out = append(out, spec.Disk{Path: p, Serial: "serial-of-" + p})
			}
			return out, nil
		},
		open: func(d spec.Disk) (DiskReader, error) {
			b.disks[d.Path].opens++
			if b.openErr != nil {
				return nil, b.openErr
			}
			return b.disks[d.Path], nil
		},
	}
	return b
}

func (b *bench) read(t *testing.T) []Reading {
	t.Helper()
	r, err := b.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDisksAreOpenedOnceAndAgainAfterAFailure(t *testing.T) {
	b := newBench("/dev/nvme0n1", "/dev/nvme1n1")
	for range 5 {
		b.read(t)
	}
	sick := b.disks["/dev/nvme1n1"]
	if sick.opens != 1 || b.lists != 1 {
		t.Fatalf("%d opens, %d listings in five readings", sick.opens, b.lists)
	}
	sick.err = errors.New("input/output error")
	r := b.read(t)
	if r[0].NVMe == nil || r[1].NVMe != nil || r[1].Error != "input/output error" || r[1].Serial == "" {
		t.Fatalf("%+v", r)
	}
	sick.err = nil
	if r = b.read(t); r[1].NVMe == nil || sick.opens != 2 || sick.closed != 1 {
		t.Fatalf("%+v after %d opens, %d closes", r[1], sick.opens, sick.closed)
	}
}

func TestDisksAreListedAgainWhenOneComesOrGoes(t *testing.T) {
	b := newBench("/dev/nvme0n1", "/dev/nvme1n1")
	b.read(t)
	b.block = b.block[:1]
	if r := b.read(t); len(r) != 1 || b.lists != 2 || b.disks["/dev/nvme1n1"].closed != 1 {
		t.Errorf("%d disks, %d listings", len(r), b.lists)
	}
}

func TestADiskWithoutSMARTIsAskedOnce(t *testing.T) {
	b := newBench("/dev/vda")
	b.openErr = errNoSMART("virtual disk")
	b.read(t)
	r := b.read(t)[0]
	if r.Unsupported != "virtual disk" || r.Kind != KindVirtual || b.disks["/dev/vda"].opens != 1 {
		t.Errorf("%+v after %d opens", r, b.disks["/dev/vda"].opens)
	}
}

func TestAMissingPrivilegeIsAnErrorWithAHint(t *testing.T) {
	b := newBench("/dev/nvme0n1")
	b.openErr = fs.ErrPermission
	r := b.read(t)[0]
	if r.Unsupported != "" || !strings.Contains(r.Error, "CAP_SYS_ADMIN") || Judge(r, Baseline{}).Verdict != agents.DiskWarn {
		t.Errorf("%+v", r)
	}
}

func TestKinds(t *testing.T) {
	for path, want := range map[string]string{"/dev/nvme0n1": KindNVMe, "/dev/sda": KindSATA, "/dev/vdb": KindVirtual, "/dev/mmcblk0": KindSCSI} {
		if got := kindOf(spec.Disk{Path: path}); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

type scriptedSource struct {
	mu       sync.Mutex
	readings []Reading
	err      error
	asked    int
}

func (s *scriptedSource) Readings(context.Context) ([]Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.readings, s.err
}

func (s *scriptedSource) say(err error, readings ...Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.readings = err, readings
}

func watching(t *testing.T, file string, s Source) *Watch {
	w := &Watch{Source: s, File: file, Log: slog.New(slog.DiscardHandler)}
	go w.Run(t.Context())
	synctest.Wait()
	return w
}

// pass lets a minute go by and the watch look.
func pass(w *Watch) agents.Disk {
	time.Sleep(time.Minute)
	synctest.Wait()
	return w.Disks()[0]
}

func TestWatchRemembersTheBaselineAcrossRestarts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disks.json")
	s := &scriptedSource{readings: []Reading{nvme(func(l *NVMeLog) { l.MediaErrors = 3 })}}
	synctest.Test(t, func(t *testing.T) {
		if d := watching(t, file, s).Disks()[0]; d.Verdict != agents.DiskOK {
			t.Fatalf("first sight: %+v", d)
		}
	})
	s.readings = []Reading{nvme(func(l *NVMeLog) { l.MediaErrors = 4 })}
	synctest.Test(t, func(t *testing.T) {
		if d := watching(t, file, s).Disks()[0]; d.Verdict != agents.DiskWarn || !strings.Contains(d.Findings[0], "1 more") {
			t.Fatalf("after a restart: %+v", d)
		}
	})
	if err := os.WriteFile(file, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if d := watching(t, file, s).Disks()[0]; d.Verdict != agents.DiskOK {
			t.Fatalf("with a torn file: %+v", d)
		}
	})
}

func TestWatchWithdrawsWhatItCanNoLongerRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{readings: []Reading{nvme(func(*NVMeLog) {})}}
		w := watching(t, "", s)
		s.say(errors.New("a disk does not answer"))
		if d := pass(w); d.Verdict != agents.DiskWarn || d.Serial != "S" || d.PercentUsed != nil {
			t.Fatalf("unreadable: %+v", d)
		}
		s.say(nil, nvme(func(l *NVMeLog) { l.CriticalWarning = 8 }))
		if d := pass(w); d.Verdict != agents.DiskFailing {
			t.Fatalf("back: %+v", d)
		}
		s.say(errors.New("gone"))
		if d := pass(w); d.Verdict != agents.DiskFailing || len(d.Findings) != 2 {
			t.Fatalf("failing, then unreadable: %+v", d)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asked != 4 {
			t.Errorf("asked %d times in three minutes", s.asked)
		}
	})
}
