package initrd

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"popfleet/agents/initrd/initrdtest"
)

func gz(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

func TestTree(t *testing.T) {
	microcode := initrdtest.Archive(initrdtest.Entry("kernel/x86/microcode/x.bin", initrdtest.File, 1, 1, "mc"))
	generic := initrdtest.Archive(
		initrdtest.Entry(".", initrdtest.Dir, 1, 2, ""), initrdtest.Entry("usr/sbin", initrdtest.Dir, 2, 2, ""), initrdtest.Entry("sbin", initrdtest.Link, 3, 1, "usr/sbin"),
		initrdtest.Entry("usr/sbin/dropbear", 0o100755, 4, 1, "elf"), initrdtest.Entry("etc/fleet/net.sh", initrdtest.File, 5, 1, "old"),
		initrdtest.Entry("bin/a", initrdtest.File, 6, 2, ""), initrdtest.Entry("bin/b", initrdtest.File, 6, 2, "both"),
		initrdtest.Entry("loop", initrdtest.Link, 7, 1, "loop"), initrdtest.Entry("abs", initrdtest.Link, 8, 1, "/sbin/dropbear"), initrdtest.Entry("dev/null", 0o020666, 9, 1, ""),
	)
	node := initrdtest.Archive(initrdtest.Entry("etc", initrdtest.Dir, 1, 2, ""), initrdtest.Entry("/etc/fleet/net.sh", initrdtest.File, 2, 1, "newer"))
	tree := Tree{Keep: func(p string) bool { return p == "etc/fleet/net.sh" || p == "bin/a" }}
	for _, initrd := range []string{microcode + strings.Repeat("\x00", 512-len(microcode)%512) + initrdtest.Zstd(t, generic), initrdtest.Zstd(t, node), gz(initrdtest.Archive(initrdtest.Entry("g", initrdtest.File, 1, 1, "z")))} {
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
	if e, _ := tree.Lookup("bin/a"); string(e.Data) != "both" {
		t.Errorf("the content of a file with two names is kept under neither: %q", e.Data)
	}
	for _, p := range []string{"loop", "sbin", "dev/null", "nothing"} {
		if _, ok := tree.Regular(p); ok {
			t.Errorf("%s is taken for a file", p)
		}
	}
}

// TestWhatAKernelWouldNotUnpack: a cut or foreign initramfs is an error, never a smaller tree.
func TestWhatAKernelWouldNotUnpack(t *testing.T) {
	whole := initrdtest.Zstd(t, initrdtest.Archive(initrdtest.Entry("usr/sbin/dropbear", initrdtest.File, 1, 1, strings.Repeat("some text ", 5000))))
	for name, c := range map[string]struct{ data, want string }{
		"cut zstd":      {whole[:len(whole)/2], "zstd"},
		"cut plain":     {initrdtest.Archive(initrdtest.Entry("a", initrdtest.File, 1, 1, "data"))[:115], "cut off"},
		"no trailer":    {initrdtest.Entry("a", initrdtest.File, 1, 1, "data"), "cut off"},
		"not one":       {"#!/bin/sh\nexit 0\n", "neither an archive"},
		"huge entry":    {strings.Replace(initrdtest.Entry("a", initrdtest.File, 1, 1, ""), "00000000"+"00000000"+"00000000", "00000000"+"ffffffff"+"00000000", 1), ""},
		"broken header": {strings.Repeat("070701zz", 20), "broken header"},
		"no name":       {strings.Replace(initrdtest.Entry("", initrdtest.File, 1, 1, ""), "0000000100000000\x00", "0000000000000000\x00", 1), "name of 0"},
		"nested":        {initrdtest.Zstd(t, initrdtest.Zstd(t, initrdtest.Archive())), "compressed within"},
		"stray bytes":   {initrdtest.Archive() + "abc", "stray bytes"},
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
	whole := initrdtest.Archive(initrdtest.Entry("usr/sbin", initrdtest.Dir, 2, 2, ""), initrdtest.Entry("sbin", initrdtest.Link, 3, 1, "usr/sbin"), initrdtest.Entry("usr/sbin/a", initrdtest.File, 4, 2, "elf"))
	f.Add([]byte(whole))
	f.Add([]byte(gz(whole)))
	f.Add([]byte(initrdtest.Zstd(f, whole)))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree := Tree{Keep: func(string) bool { return true }}
		_ = tree.Add(bytes.NewReader(b))
		for _, p := range tree.Paths() {
			tree.Lookup(p)
		}
	})
}
