package initrd

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// one is an entry as cpio -H newc writes it.
func one(name string, mode, ino, nlink int, data string) string {
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ino, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name)+1, 0) + name + "\x00"
	h += strings.Repeat("\x00", -len(h)&3) + data
	return h + strings.Repeat("\x00", -len(h)&3)
}

func archive(entries ...string) string {
	return strings.Join(entries, "") + one(trailer, 0, 0, 1, "")
}

func zst(t testing.TB, s string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(s), nil))
}

func gz(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

const (
	file = 0o100644
	dir  = 0o040755
	link = 0o120777
)

func TestTree(t *testing.T) {
	microcode := archive(one("kernel/x86/microcode/x.bin", file, 1, 1, "mc"))
	generic := archive(
		one(".", dir, 1, 2, ""), one("usr/sbin", dir, 2, 2, ""), one("sbin", link, 3, 1, "usr/sbin"),
		one("usr/sbin/dropbear", 0o100755, 4, 1, "elf"), one("etc/fleet/net.sh", file, 5, 1, "old"),
		one("bin/a", file, 6, 2, ""), one("bin/b", file, 6, 2, "both"),
		one("loop", link, 7, 1, "loop"), one("abs", link, 8, 1, "/sbin/dropbear"), one("dev/null", 0o020666, 9, 1, ""),
	)
	node := archive(one("etc", dir, 1, 2, ""), one("/etc/fleet/net.sh", file, 2, 1, "newer"))
	tree := Tree{Keep: func(p string) bool { return p == "etc/fleet/net.sh" }}
	for _, initrd := range []string{microcode + strings.Repeat("\x00", 512-len(microcode)%512) + zst(t, generic), zst(t, node), gz(archive(one("g", file, 1, 1, "z")))} {
		if err := tree.Add(strings.NewReader(initrd)); err != nil {
			t.Fatal(err)
		}
	}
	for path, size := range map[string]int64{"sbin/dropbear": 3, "/sbin/../sbin/dropbear": 3, "abs": 3, "bin/a": 4, "bin/b": 4, "g": 1, "kernel/x86/microcode/x.bin": 2} {
		if e, ok := tree.Regular(path); !ok || e.Size != size {
			t.Errorf("%s: %+v %v, want %d bytes", path, e, ok, size)
		}
	}
	if e, _ := tree.Lookup("etc/fleet/net.sh"); string(e.Data) != "newer" {
		t.Errorf("a later archive does not win: %q", e.Data)
	}
	for _, p := range []string{"loop", "sbin", "dev/null", "nothing"} {
		if _, ok := tree.Regular(p); ok {
			t.Errorf("%s is taken for a file", p)
		}
	}
}

// TestWhatAKernelWouldNotUnpack: a cut or foreign initramfs is an error, never a smaller tree.
func TestWhatAKernelWouldNotUnpack(t *testing.T) {
	whole := zst(t, archive(one("usr/sbin/dropbear", file, 1, 1, strings.Repeat("some text ", 5000))))
	for name, c := range map[string]struct{ data, want string }{
		"cut zstd":      {whole[:len(whole)/2], "zstd"},
		"cut plain":     {archive(one("a", file, 1, 1, "data"))[:115], "cut off"},
		"no trailer":    {one("a", file, 1, 1, "data"), "cut off"},
		"not one":       {"#!/bin/sh\nexit 0\n", "neither an archive"},
		"huge entry":    {strings.Replace(one("a", file, 1, 1, ""), "00000000"+"00000000"+"00000000", "00000000"+"ffffffff"+"00000000", 1), ""},
		"broken header": {strings.Repeat("070701zz", 20), "broken header"},
		"no name":       {strings.Replace(one("", file, 1, 1, ""), "0000000100000000\x00", "0000000000000000\x00", 1), "name of 0"},
		"nested":        {zst(t, zst(t, archive())), "compressed within"},
		"stray bytes":   {archive() + "abc", "stray bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := Tree{Keep: func(string) bool { return true }}
			if err := tree.Add(strings.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func FuzzTree(f *testing.F) {
	whole := archive(one("usr/sbin", dir, 2, 2, ""), one("sbin", link, 3, 1, "usr/sbin"), one("usr/sbin/a", file, 4, 2, "elf"))
	f.Add([]byte(whole))
	f.Add([]byte(gz(whole)))
	f.Add([]byte(zst(f, whole)))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree := Tree{Keep: func(string) bool { return true }}
		_ = tree.Add(bytes.NewReader(b))
		for _, p := range tree.Paths() {
			tree.Lookup(p)
		}
	})
}
