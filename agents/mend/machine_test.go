package mend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/agents/bootchain"
	"popfleet/agents/bootcheck"
	"popfleet/agents/command"
	"popfleet/agents/disk"
	"popfleet/agents/facts"
	"popfleet/agents/mirror"
	"popfleet/playbooks/spec"
)

// TestOnRealDisks runs on a machine whose disks may be destroyed, named in POPFLEET_MEND_DISKS by kernel name: one that
// is left, one that failed, one that is blank. It needs root, md in the kernel, mdadm, wipefs, mkfs.vfat, and the boot
// loaders of an image in /usr/lib/fleet/boot.
func TestOnRealDisks(t *testing.T) {
	names := strings.Fields(os.Getenv("POPFLEET_MEND_DISKS"))
	if len(names) != 3 {
		t.Skip("POPFLEET_MEND_DISKS names no three disks that may be destroyed")
	}
	m := &realMachine{t: t, left: names[0], lost: names[1], blank: names[2]}
	m.identity()
	m.install()
	m.run("mdadm", "/dev/md126", "--fail", "/dev/"+m.part(m.lost, 3), "--remove", "/dev/"+m.part(m.lost, 3))
	m.run("mdadm", "/dev/md127", "--fail", "/dev/"+m.part(m.lost, 4), "--remove", "/dev/"+m.part(m.lost, 4))

	if _, err := m.mend("mend-plan", ""); err == nil || !strings.Contains(err.Error(), "name one") {
		t.Errorf("a disk that fell out and a blank one: %v", err)
	}
	p, err := m.mend("mend-plan", m.serial(m.blank))
	m.must(err)
	if p.Do != spec.MendNew || p.Disk.Serial != m.serial(m.blank) || p.Whole() {
		t.Fatalf("plan %+v", p)
	}
	m.cutEverywhere()
	p, err = m.mend("mend", m.serial(m.blank))
	m.must(err)
	t.Logf("%+v", p)
	m.whole()
	m.boots(m.blank)
	m.different()

	m.run("mdadm", "/dev/md126", "--fail", "/dev/"+m.part(m.blank, 3), "--remove", "/dev/"+m.part(m.blank, 3))
	m.fill("/dev/md126", 'x')
	m.run("mdadm", "/dev/md127", "--fail", "/dev/"+m.part(m.blank, 4))
	m.run("wipefs", "--all", "--force", "/dev/"+m.lost)
	if p, err = m.mend("mend-plan", m.serial(m.blank)); err != nil || p.Do != spec.MendBack {
		t.Fatalf("a disk that fell out: %+v, %v", p, err)
	}
	_, err = m.mend("mend", m.serial(m.blank))
	m.must(err)
	m.whole()
	if p, err = m.mend("mend-plan", ""); err != nil || p.Do != spec.MendNothing || !p.Whole() || len(p.Serials) < 2 {
		t.Errorf("whole: %+v, %v", p, err)
	}
}

type realMachine struct {
	t                 *testing.T
	left, lost, blank string
}

func (m *realMachine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *realMachine) run(argv ...string) {
	m.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

func (m *realMachine) part(name string, n int) string {
	return filepath.Base(disk.Partition("/dev/"+name, n))
}

func (m *realMachine) serial(name string) string { return disk.Host{}.Serial(name) }

func (m *realMachine) handler() Handler {
	return Handler{Run: command.System{}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
}

func (m *realMachine) mend(op, serial string) (spec.MendPlan, error) {
	return m.mendUntil(m.t.Context(), op, serial, m.handler())
}

func (m *realMachine) mendUntil(ctx context.Context, op, serial string, h Handler) (spec.MendPlan, error) {
	text, err := json.Marshal(spec.Mend{Version: 1, Node: "fsn-1", Disk: serial})
	m.must(err)
	serve := h.Mend
	if op == spec.OpMendPlan {
		serve = h.Plan
	}
	v, err := serve(ctx, text, said{m.t})
	if err != nil {
		return spec.MendPlan{}, err
	}
	return v.(spec.MendPlan), nil
}

// said shows a handler's events.
type said struct{ t *testing.T }

func (s said) Emit(e spec.Event) {
	if os.Getenv("POPFLEET_MEND_DISKS") != "" {
		s.t.Log(e.Step, e.Text)
	}
}

func (said) Fetch(context.Context, []spec.Blob, func(spec.Blob, io.Reader) error) error {
	return errors.New("nothing is fetched")
}

func (m *realMachine) identity() {
	m.must(os.MkdirAll("/etc/fleet", 0o755))
	m.must(os.WriteFile(facts.IdentityFile, []byte(`{"fleet":"demo","node":"fsn-1","run":"run-1"}`), 0o644))
}

// install makes two disks as an installation leaves them, with something on each mirror.
func (m *realMachine) install() {
	l := testLayout(512)
	for _, name := range []string{m.left, m.lost} {
		f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
		m.must(err)
		size, err := f.Seek(0, 2)
		m.must(err)
		one, err := l.fresh()
		m.must(err)
		one.rename("run-1")
		m.must(errors.Join(one.write(f, size, bytes.Repeat([]byte(name[:1]), 16)), f.Sync(), f.Close()))
		j := &job{Handler: m.handler(), run: "run-1", emit: func(spec.Event) {}}
		m.must(j.reread("/dev/" + name))
		m.must(j.appear(m.t.Context(), spec.Disk{Path: "/dev/" + name}))
	}
	for dev, n := range map[string]int{"/dev/md126": 3, "/dev/md127": 4} {
		argv := []string{"mdadm", "--create", dev, "--run", "--force", "--level=1", "--metadata=1.2", "--homehost=any", "--raid-devices=2"}
		if n == 4 {
			argv = append(argv, "--bitmap=internal")
		}
		m.run(append(argv, "/dev/"+m.part(m.left, n), "/dev/"+m.part(m.lost, n))...)
		m.fill(dev, byte('a'+n))
	}
	m.whole()
}

func (m *realMachine) fill(dev string, b byte) {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	m.must(err)
	_, err = f.Write(bytes.Repeat([]byte{b}, 1<<20))
	m.must(errors.Join(err, f.Sync(), f.Close()))
}

// cutEverywhere ends the work before each program that it runs, in turn: asked again it goes on.
func (m *realMachine) cutEverywhere() {
	for at := 1; ; at++ {
		ctx, cancel := context.WithCancel(m.t.Context())
		h := m.handler()
		cut := &cutting{left: at, cancel: cancel}
		h.Run = cut
		_, err := m.mendUntil(ctx, spec.OpMend, m.serial(m.blank), h)
		cancel()
		if err == nil {
			m.t.Logf("%d cuts", at-1)
			return
		}
		if !errors.Is(err, context.Canceled) {
			m.t.Fatalf("cut %d: %v", at, err)
		}
	}
}

type cutting struct {
	left   int
	cancel func()
}

func (c *cutting) Run(ctx context.Context, cmd command.Cmd) ([]byte, error) {
	if c.left--; c.left <= 0 {
		c.cancel()
		return nil, context.Canceled
	}
	return command.System{}.Run(ctx, cmd)
}

// whole waits until the kernel has written everything, and has it compare the copies.
func (m *realMachine) whole() {
	m.t.Helper()
	m.await("in sync", func(a mirror.Array) bool { return !a.Degraded() && a.Action == "idle" })
	for _, dev := range []string{"md126", "md127"} {
		m.must(os.WriteFile("/sys/block/"+dev+"/md/sync_action", []byte("check"), 0))
	}
	m.await("compared", func(a mirror.Array) bool { return a.Action == "idle" })
	for _, dev := range []string{"md126", "md127"} {
		if b, err := os.ReadFile("/sys/block/" + dev + "/md/mismatch_cnt"); err != nil || strings.TrimSpace(string(b)) != "0" {
			m.t.Errorf("%s: %s sectors differ, %v", dev, b, err)
		}
	}
}

func (m *realMachine) await(what string, is func(mirror.Array) bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	for slices.ContainsFunc(mirror.Host{}.List(), func(a mirror.Array) bool { return !is(a) }) {
		select {
		case <-ctx.Done():
			m.t.Fatalf("never %s: %+v", what, mirror.Host{}.List())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// boots looks at the disk as the reboot check does.
func (m *realMachine) boots(name string) {
	l, err := bootchain.ReadLoaders("/")
	m.must(err)
	c := bootcheck.Checker{}
	disks, err := c.Disks()
	m.must(err)
	i := slices.IndexFunc(disks, func(d spec.Disk) bool { return d.Path == "/dev/"+name })
	if i < 0 {
		m.t.Fatalf("%s does not carry the installation's mark: %+v", name, disks)
	}
	m.must(c.VerifyLoaders(l, disks[i]))
}

// different: the new disk has the same partitions, and no GUID in common with the other.
func (m *realMachine) different() {
	var tables []layout
	for _, name := range []string{m.left, m.blank} {
		f, err := os.Open("/dev/" + name)
		m.must(err)
		l, err := readLayout(f, 512)
		f.Close()
		m.must(err)
		tables = append(tables, l)
	}
	for n := 1; n <= 4; n++ {
		a, b := tables[0], tables[1]
		if a.first(n) != b.first(n) || a.last(n) != b.last(n) || a.name(n) != b.name(n) || bytes.Equal(a.entry(n)[16:32], b.entry(n)[16:32]) {
			m.t.Errorf("partition %d: %x, %x", n, a.entry(n), b.entry(n))
		}
	}
}
