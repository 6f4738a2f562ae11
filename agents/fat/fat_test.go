package fat_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/agents/fat"
	"popfleet/agents/fat/fattest"
)

func read(t *testing.T, path string) (map[string]string, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fs, err := fat.Open(f)
	if err != nil {
		return nil, err
	}
	files, err := fs.Files()
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for _, file := range files {
		data, err := io.ReadAll(file.Open())
		if err != nil {
			return nil, err
		}
		got[file.Path] = string(data)
	}
	return got, nil
}

var content = map[string][]byte{
	"EFI/BOOT/BOOTX64.EFI": bytes.Repeat([]byte("MZ loader "), 1000),
	"EFI/EMPTY":            {},
	"NOTE.TXT":             []byte("hello"),
}

func TestFiles(t *testing.T) {
	for name, clusters := range map[string]int{"FAT16": fattest.FAT16, "FAT32": fattest.FAT32} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "esp")
			fattest.Write(t, path, clusters, content)
			got, err := read(t, path)
			if err != nil || len(got) != len(content) {
				t.Fatalf("%d files, %v", len(got), err)
			}
			for p, want := range content {
				if got[p] != string(want) {
					t.Errorf("%s: %d bytes, want %d", p, len(got[p]), len(want))
				}
			}
		})
	}
}

// TestFilesOfMkfs reads what the system's own tools wrote, long names and a deleted file included.
func TestFilesOfMkfs(t *testing.T) {
	for _, tool := range []string{"mkfs.vfat", "mcopy", "mmd", "mdel"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not on this machine")
		}
	}
	dir := t.TempDir()
	run := func(argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	loader := bytes.Repeat([]byte("loader"), 100_000)
	if err := os.WriteFile(filepath.Join(dir, "l"), loader, 0o600); err != nil {
		t.Fatal(err)
	}
	run("mkfs.vfat", "-C", "-F", "32", "-n", "FLEET-ESP", "esp", "262144")
	run("mmd", "-i", "esp", "::EFI", "::EFI/BOOT", "::efi/A long folder's name")
	run("mcopy", "-i", "esp", "l", "::gone")
	run("mcopy", "-i", "esp", "l", "::EFI/BOOT/BOOTX64.EFI")
	run("mdel", "-i", "esp", "::gone")
	run("mcopy", "-i", "esp", "l", "::EFI/A long folder's name/a rather long file name.configuration")
	got, err := read(t, filepath.Join(dir, "esp"))
	if err != nil || len(got) != 2 || got["EFI/BOOT/BOOTX64.EFI"] != string(loader) ||
		got["EFI/A long folder's name/a rather long file name.configuration"] != string(loader) {
		t.Errorf("%d files, %v", len(got), err)
	}
}

func TestRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "esp")
	fattest.Write(t, path, fattest.FAT16, content)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"no boot sector": func(b []byte) []byte { b[510] = 0; return b },
		"cut":            func(b []byte) []byte { return b[:len(b)-512] },
		"a chain to nowhere": func(b []byte) []byte {
			copy(b[512+4:], bytes.Repeat([]byte{0xf0, 0xf0}, 200))
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, spoil(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := read(t, path); err == nil {
				t.Errorf("read as %d files", len(got))
			}
		})
	}
}

func FuzzFiles(f *testing.F) {
	path := filepath.Join(f.TempDir(), "esp")
	fattest.Write(f, path, fattest.FAT16, content)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:64], uint16(0))
	f.Add(whole[512:1024], uint16(512))
	f.Fuzz(func(t *testing.T, patch []byte, at uint16) {
		b := bytes.Clone(whole)
		copy(b[at:], patch)
		fs, err := fat.Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		files, _ := fs.Files()
		for _, file := range files {
			_, _ = io.Copy(io.Discard, io.LimitReader(file.Open(), 1<<20))
			_ = strings.ToLower(file.Path)
		}
	})
}
