package mend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/agents/command"
	"popfleet/agents/disk"
	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

const node = "fsn-1"

// world is a node's /sys and /dev made of files: disk sda is left, sdb is gone or as a test says. It plays mdadm and the
// kernel's partitions.
type world struct {
	t    *testing.T
	root string
	ran  []string
	fail func(argv []string) error // before a program does anything
	sigs map[string]string         // what wipefs finds, by device
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, root: t.TempDir(), sigs: map[string]string{}}
	w.put("etc/fleet/node.json", `{"fleet":"demo","node":"`+node+`","run":"run-1"}`)
	w.put("proc/self/mountinfo", "20 1 0:20 / / rw - tmpfs none rw\n")
	w.put("run/keep", "")
	w.disk("sda", "LEFT", 200)
	w.table("sda", "run-1")
	for device, n := range map[string]int{"md126": 3, "md127": 4} {
		w.put("sys/block/"+device+"/md/raid_disks", "2\n")
		w.put("sys/block/"+device+"/md/sync_action", "idle\n")
		w.member(device, fmt.Sprintf("sda%d", n), "in_sync")
	}
	return w
}

func (w *world) path(p string) string { return filepath.Join(w.root, p) }

func (w *world) put(path, data string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(path)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(path), []byte(data), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// disk is a blank one.
func (w *world) disk(name, serial string, mib int64) {
	w.put("sys/block/"+name+"/size", fmt.Sprint(mib<<20/512))
	w.put("sys/block/"+name+"/serial", serial)
	w.put("dev/"+name, "")
	if err := os.Truncate(w.path("dev/"+name), mib<<20); err != nil {
		w.t.Fatal(err)
	}
}

// table partitions a disk as an installation does, and has the kernel know.
func (w *world) table(name, marker string) {
	w.t.Helper()
	f, err := os.OpenFile(w.path("dev/"+name), os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	l := testLayout(512)
	l.rename(marker)
	if err := errors.Join(l.write(f, 200<<20, bytes.Repeat([]byte{1}, 16)), f.Close()); err != nil {
		w.t.Fatal(err)
	}
	w.partitions(name)
}

// partitions is the kernel's view of a table.
func (w *world) partitions(name string) {
	for n, label := range map[int]string{1: "", 2: disk.NameESP, 3: disk.NameBoot, 4: disk.NameRoot} {
		w.put(fmt.Sprintf("sys/block/%s/%s%d/uevent", name, name, n), "PARTNAME="+label+"\n")
		w.put(fmt.Sprintf("dev/%s%d", name, n), "")
	}
}

func (w *world) member(device, part, state string) {
	w.put("sys/block/"+device+"/md/dev-"+part+"/state", state+"\n")
	w.put("sys/block/"+part[:3]+"/"+part+"/holders/"+device, "")
}

func (w *world) letGo(device, part string) {
	os.RemoveAll(w.path("sys/block/" + device + "/md/dev-" + part))
	os.RemoveAll(w.path("sys/block/" + part[:3] + "/" + part + "/holders/" + device))
}

// marker is what the disk's first partition is called now.
func (w *world) marker(name string) string {
	f, err := os.Open(w.path("dev/" + name))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	c, err := disk.Identify(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Marker
}

// Run plays the programs.
func (w *world) Run(ctx context.Context, c command.Cmd) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.fail != nil {
		if err := w.fail(c.Argv); err != nil {
			return nil, err
		}
	}
	w.ran = append(w.ran, strings.Join(c.Argv, " "))
	last := c.Argv[len(c.Argv)-1]
	switch {
	case c.Argv[0] == "wipefs" && c.Argv[1] == "--noheadings":
		return []byte(w.sigs[last]), nil
	case c.Argv[0] == "mdadm" && c.Argv[2] == "--add":
		if w.marker(filepath.Base(last)[:3]) != "run-1" {
			w.t.Errorf("%s was added before its disk was done", last)
		}
		w.member(filepath.Base(c.Argv[1]), filepath.Base(last), "spare")
	case c.Argv[0] == "mdadm" && c.Argv[2] == "--remove":
		w.removeFaulty(filepath.Base(c.Argv[1]))
	}
	return nil, nil
}

func (w *world) removeFaulty(device string) {
	states, _ := filepath.Glob(w.path("sys/block/" + device + "/md/dev-*/state"))
	for _, s := range states {
		if b, _ := os.ReadFile(s); strings.Contains(string(b), "faulty") {
			w.letGo(device, strings.TrimPrefix(filepath.Base(filepath.Dir(s)), "dev-"))
		}
	}
}

func (w *world) handler() Handler {
	return Handler{Host: facts.Host{Root: w.root}, Run: w, Log: slog.New(slog.DiscardHandler), Poll: time.Millisecond,
		Reread:  func(dev string) error { w.partitions(filepath.Base(dev)); return nil },
		Loaders: func(d spec.Disk) error { w.ran = append(w.ran, "loaders "+d.Serial); return nil }}
}

func (w *world) ask(ctx context.Context, op string, req spec.Mend) (spec.MendPlan, error) {
	req.Version, req.Node = 1, node
	text, err := json.Marshal(req)
	if err != nil {
		w.t.Fatal(err)
	}
	h := w.handler()
	serve := h.Mend
	if op == spec.OpMendPlan {
		serve = h.Plan
	}
	v, err := serve(ctx, text, said{w.t})
	if err != nil {
		return spec.MendPlan{}, err
	}
	return v.(spec.MendPlan), nil
}

func TestANewDiskIsPutIn(t *testing.T) {
	w := newWorld(t)
	w.disk("sdb", "NEW", 300)
	if f, err := os.OpenFile(w.path("dev/sdb"), os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	} else if _, err = f.WriteString("boot code"); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	p, err := w.ask(t.Context(), spec.OpMendPlan, spec.Mend{})
	if err != nil || p.Do != spec.MendNew || p.Disk.Serial != "NEW" || p.Whole() || strings.Contains(strings.Join(w.ran, "\n"), "--all") || w.marker("sdb") != "" {
		t.Fatalf("%+v, %v, ran %q", p, err, w.ran)
	}
	if p, err = w.ask(t.Context(), spec.OpMend, spec.Mend{Disk: "NEW"}); err != nil || p.Do != spec.MendNothing || !slices.Equal(p.Serials, []string{"LEFT", "NEW"}) {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, m := range p.Mirrors {
		if !m.Rebuilds || m.InSync != 1 || m.Wanted != 2 {
			t.Errorf("%+v", m)
		}
	}
	head := make([]byte, 440)
	if f, err := os.Open(w.path("dev/sdb")); err != nil {
		t.Error(err)
	} else if _, err = f.ReadAt(head, 0); err != nil || !bytes.Equal(head, make([]byte, 440)) || f.Close() != nil {
		t.Errorf("a former owner's boot code is left: %q, %v", head, err)
	}
	loaders, add := slices.Index(w.ran, "loaders NEW"), slices.Index(w.ran, "mdadm /dev/md126 --add /dev/sdb3")
	if loaders < 0 || add < loaders || !slices.Contains(w.ran, "mdadm /dev/md127 --add /dev/sdb4") {
		t.Errorf("ran %q", w.ran)
	}
	ran := len(w.ran)
	if _, err = w.ask(t.Context(), spec.OpMend, spec.Mend{}); err != nil || len(w.ran) != ran {
		t.Errorf("again: %v, ran %q", err, w.ran[ran:])
	}
}

// TestCutAtEveryProgram: whatever was done when it was cut, the same again comes to the same end, and no mirror ever has a
// disk that is not done.
func TestCutAtEveryProgram(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t)
		w.disk("sdb", "NEW", 300)
		ctx, cancel := context.WithCancel(t.Context())
		left := at
		w.fail = func([]string) error {
			if left--; left == 0 {
				cancel()
				return context.Canceled
			}
			return nil
		}
		_, err := w.ask(ctx, spec.OpMend, spec.Mend{Disk: "NEW"})
		cancel()
		if err == nil {
			if at < 10 {
				t.Errorf("only %d programs", at)
			}
			return
		}
		w.fail = nil
		p, err := w.ask(t.Context(), spec.OpMend, spec.Mend{})
		if err != nil || !slices.Equal(p.Serials, []string{"LEFT", "NEW"}) || !p.Mirrors[0].Rebuilds || !p.Mirrors[1].Rebuilds || w.marker("sdb") != "run-1" {
			t.Fatalf("cut %d: %+v, %v, ran %q", at, p, err, w.ran)
		}
	}
}

// TestWhichDisk: what is there, and which of it is taken.
func TestWhichDisk(t *testing.T) {
	foreign := func(w *world) { w.disk("sdb", "USED", 300); w.sigs["/dev/sdb"] = "zfs_member" }
	for name, c := range map[string]struct {
		make func(*world)
		req  spec.Mend
		do   string
		disk string
		says string // of the error
	}{
		"none":           {func(*world) {}, spec.Mend{}, "", "", "no blank disk"},
		"two":            {func(w *world) { w.disk("sdb", "A", 300); w.disk("sdc", "B", 300) }, spec.Mend{}, "", "", "2 disks could be taken"},
		"one of two":     {func(w *world) { w.disk("sdb", "A", 300); w.disk("sdc", "B", 300) }, spec.Mend{Disk: "B"}, spec.MendNew, "B", ""},
		"unfinished":     {func(w *world) { w.disk("sdb", "NEW", 300); w.table("sdb", Unfinished) }, spec.Mend{}, spec.MendFinish, "NEW", ""},
		"fell out":       {func(w *world) { w.disk("sdb", "OLD", 300); w.table("sdb", "run-1") }, spec.Mend{}, spec.MendBack, "OLD", ""},
		"another's":      {func(w *world) { w.disk("sdb", "HIS", 300); w.table("sdb", "run-2") }, spec.Mend{}, "", "", "no blank disk"},
		"another's, yes": {func(w *world) { w.disk("sdb", "HIS", 300); w.table("sdb", "run-2") }, spec.Mend{Disk: "HIS", Erase: true}, spec.MendNew, "HIS", ""},
		"a signature":    {foreign, spec.Mend{}, "", "", "no blank disk"},
		"named, not yet": {foreign, spec.Mend{Disk: "USED"}, "", "", "is not blank"},
		"named, erase":   {foreign, spec.Mend{Disk: "USED", Erase: true}, spec.MendNew, "USED", ""},
		"not there":      {func(*world) {}, spec.Mend{Disk: "X"}, "", "", "no disk with serial"},
		"too small":      {func(w *world) { w.disk("sdb", "NEW", 100) }, spec.Mend{}, "", "", "the mirrors need"},
		"the one left":   {func(*world) {}, spec.Mend{Disk: "LEFT", Erase: true}, "", "", "is a member of"},
		"held":           {func(w *world) { w.disk("sdb", "NEW", 300); w.put("sys/block/sdb/holders/dm-0", "") }, spec.Mend{Disk: "NEW", Erase: true}, "", "", "is held by dm-0"},
		"half failed": {func(w *world) {
			w.disk("sdb", "BAD", 300)
			w.table("sdb", "run-1")
			w.member("md126", "sdb3", "in_sync")
			w.member("md127", "sdb4", "faulty")
			w.disk("sdc", "NEW", 300)
		}, spec.Mend{}, "", "", "disk BAD failed in md127 and still serves md126"},
		"in one of two": {func(w *world) {
			w.disk("sdb", "NEW", 300)
			w.table("sdb", "run-1")
			w.member("md126", "sdb3", "spare")
		}, spec.Mend{}, spec.MendBack, "NEW", ""},
		"failed, another is there": {func(w *world) {
			w.disk("sdb", "BAD", 300)
			w.table("sdb", "run-1")
			w.member("md126", "sdb3", "faulty")
			w.member("md127", "sdb4", "faulty")
			w.disk("sdc", "NEW", 300)
		}, spec.Mend{}, spec.MendNew, "NEW", ""},
		"being written": {func(w *world) {
			w.disk("sdb", "NEW", 300)
			w.table("sdb", "run-1")
			w.member("md126", "sdb3", "spare")
			w.member("md127", "sdb4", "spare")
		}, spec.Mend{}, spec.MendNothing, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.make(w)
			p, err := w.ask(t.Context(), spec.OpMendPlan, c.req)
			got := ""
			if p.Disk != nil {
				got = p.Disk.Serial
			}
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) || p.Do != c.do || got != c.disk {
				t.Errorf("%+v %s, %v", p, got, err)
			}
			if i := slices.IndexFunc(w.ran, func(s string) bool { return !strings.HasPrefix(s, "wipefs --noheadings") }); i >= 0 {
				t.Errorf("a plan ran %q", w.ran[i])
			}
		})
	}
}

// TestFellOutWithoutABitmap: mdadm does not take it as it is; its own former copy is given up, and nothing else.
func TestFellOutWithoutABitmap(t *testing.T) {
	w := newWorld(t)
	w.disk("sdb", "OLD", 300)
	w.table("sdb", "run-1")
	zeroed := false
	w.fail = func(argv []string) error {
		switch line := strings.Join(argv, " "); {
		case line == "mdadm /dev/md126 --add /dev/sdb3" && !zeroed:
			return errors.New("not performing --add as that would convert it in to a spare")
		case line == "mdadm --zero-superblock /dev/sdb3":
			zeroed = true
		case strings.Contains(line, "zero-superblock"), strings.HasPrefix(line, "wipefs --all"), strings.HasPrefix(line, "mkfs"):
			t.Errorf("ran %q", line)
		}
		return nil
	}
	if p, err := w.ask(t.Context(), spec.OpMend, spec.Mend{}); err != nil || !zeroed || !p.Mirrors[0].Rebuilds || !p.Mirrors[1].Rebuilds {
		t.Errorf("%+v, %v, ran %q", p, err, w.ran)
	}
}

func TestRequests(t *testing.T) {
	w := newWorld(t)
	for name, text := range map[string]string{
		"another node": `{"version":1,"node":"fsn-2"}`, "no version": `{"node":"fsn-1"}`, "erase what": `{"version":1,"node":"fsn-1","erase":true}`,
		"unknown": `{"version":1,"node":"fsn-1","force":true}`, "nothing": `null`,
	} {
		if _, err := w.handler().Mend(t.Context(), json.RawMessage(text), said{t}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	os.RemoveAll(w.path("sys/block/md126"))
	var typed *spec.Error
	if _, err := w.ask(t.Context(), spec.OpMend, spec.Mend{}); !errors.As(err, &typed) || typed.Code != spec.CodeNoMirror {
		t.Errorf("one mirror: %v", err)
	}
}
