package mend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// testLayout is a small node's: 1 MiB, 40 MiB, 32 MiB, 64 MiB, as sgdisk lays them out.
func testLayout(sector int64) layout {
	l := layout{sector, make([]byte, entries*entryBytes)}
	at := (1 << 20) / sector
	for i, p := range []struct {
		kind string
		mib  int64
		name string
	}{
		{"Hah!IdontNeedEFI", 1, "run-1"}, {"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b", 40, disk.NameESP},
		{"\x0f\x88\x9d\xa1\xfc\x05\x3b\x4d\xa0\x06\x74\x3f\x0f\x84\x91\x1e", 32, disk.NameBoot},
		{"\x0f\x88\x9d\xa1\xfc\x05\x3b\x4d\xa0\x06\x74\x3f\x0f\x84\x91\x1e", 64, disk.NameRoot},
	} {
		e := l.entry(i + 1)
		copy(e, p.kind)
		copy(e[16:], strings.Repeat(string(rune('A'+i)), 16))
		n := (p.mib << 20) / sector
		binary.LittleEndian.PutUint64(e[32:], uint64(at))
		binary.LittleEndian.PutUint64(e[40:], uint64(at+n-1))
		for k, u := range utf16.Encode([]rune(p.name)) {
			binary.LittleEndian.PutUint16(e[56+2*k:], u)
		}
		at += n
	}
	return l
}

// image is a disk that is a file.
func image(t *testing.T, sizeBytes int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err == nil {
		err = f.Truncate(sizeBytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestTableIsCopiedToALargerDisk(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		f := image(t, 200<<20)
		if _, err := f.WriteAt([]byte("boot code"), 0); err != nil {
			t.Fatal(err)
		}
		source := testLayout(sector)
		if err := source.check(); err != nil {
			t.Fatal(err)
		}
		l, err := source.fresh()
		if err == nil {
			err = l.write(f, 200<<20, bytes.Repeat([]byte{7}, 16))
		}
		if err != nil {
			t.Fatal(err)
		}
		back, err := readLayout(f, sector)
		if err != nil || back.name(1) != Unfinished || back.name(4) != disk.NameRoot || back.last(4) != source.last(4) || bytes.Equal(back.entry(2)[16:32], source.entry(2)[16:32]) {
			t.Errorf("%+v, %v", back, err)
		}
		c, err := disk.Identify(f)
		if err != nil || c.Marker != Unfinished || c.Table != "gpt" {
			t.Errorf("%+v, %v", c, err)
		}
		head := make([]byte, 9)
		if _, err := f.ReadAt(head, 0); err != nil || string(head) != "boot code" {
			t.Errorf("boot code is %q, %v", head, err)
		}
	}
}

// TestTableIsUnderstood has another program read what was written: checksums, backup, protective MBR.
func TestTableIsUnderstood(t *testing.T) {
	path, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Skip("no sgdisk on this machine")
	}
	f := image(t, 200<<20)
	l, err := testLayout(512).fresh()
	if err == nil {
		err = l.write(f, 200<<20, bytes.Repeat([]byte{7}, 16))
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "--verify", f.Name()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

func TestTableRefuses(t *testing.T) {
	f := image(t, 100<<20)
	l := testLayout(512)
	var typed *spec.Error
	if err := l.write(f, 100<<20, make([]byte, 16)); !errors.As(err, &typed) || typed.Code != spec.CodeDiskTooSmall {
		t.Errorf("a smaller disk: %v", err)
	}
	if c, err := disk.Identify(f); err != nil || c.String() != "empty" {
		t.Errorf("it was written to: %v, %v", c, err)
	}
	if l.needs() > 140<<20 || l.write(image(t, l.needs()), l.needs(), make([]byte, 16)) != nil {
		t.Errorf("it needs %d", l.needs())
	}
	whole := image(t, 200<<20)
	if err := l.write(whole, 200<<20, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int64{"a header's bit": 512 + 60, "an entry's bit": 1024 + 40, "no GPT": 512} {
		b := make([]byte, 1)
		if _, err := whole.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if _, err := whole.WriteAt([]byte{b[0] ^ 1}, at); err != nil {
			t.Fatal(err)
		}
		if _, err := readLayout(whole, 512); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := whole.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(layout){
		"a fifth partition": func(l layout) { copy(l.entry(5), l.entry(4)) },
		"three":             func(l layout) { clear(l.entry(2)) },
		"another name":      func(l layout) { l.entry(3)[56] = 'x' },
		"ends early":        func(l layout) { binary.LittleEndian.PutUint64(l.entry(4)[40:], 1) },
	} {
		l := testLayout(512)
		change(l)
		if l.check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0}, 40<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readLayout(bytes.NewReader(b), 512)
		if err == nil && l.check() != nil {
			t.Error("taken, though it is none of ours")
		}
	})
}
