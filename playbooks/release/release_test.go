package release

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, dir, name, content string, mode os.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), mode), os.Chmod(p, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestScanNamesByContent(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	write(t, a, "bin/fleet-dns", "dns", 0o755)
	write(t, a, "share/city.mmdb", "map", 0o644)
	write(t, b, "share/city.mmdb", "map", 0o600) // another order, another umask
	write(t, b, "bin/fleet-dns", "dns", 0o700)
	one, src, err := Scan(a)
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := Scan(b)
	if err != nil || one.Digest != two.Digest {
		t.Fatalf("%s and %s, %v", one.Digest, two.Digest, err)
	}
	// The example of docs/formats/release.md.
	if want := "1eb8805e"; len(one.Digest) != 64 || one.Files[0].Path != "bin/fleet-dns" || one.Files[0].Mode != 0o755 || !strings.HasPrefix(one.Digest, want) {
		t.Errorf("%+v, want digest %s…", one, want)
	}
	write(t, b, "bin/fleet-dns", "dnx", 0o755)
	if three, _, err := Scan(b); err != nil || three.Digest == one.Digest {
		t.Fatalf("other content, same name: %v", err)
	}
	r, size, err := src.Open(one.Files[0].SHA256)
	if err != nil || size != 3 {
		t.Fatalf("%d, %v", size, err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "dns" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSourcesRefuse(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bin/x", "x", 0o755)
	r, src, err := Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := src.Open(strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "not part of the release") {
		t.Errorf("got %v", err)
	}
	write(t, dir, "bin/x", "longer", 0o755)
	if _, _, err := src.Open(r.Files[0].SHA256); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("got %v", err)
	}
}

func TestScanRefuses(t *testing.T) {
	cases := map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"empty":       {func(string) error { return nil }, "make build"},
		"missing":     {os.Remove, "make build"},
		"symlink":     {func(d string) error { return os.Symlink("/etc/passwd", filepath.Join(d, "x")) }, "x: is a symlink"},
		"dir symlink": {func(d string) error { return os.Symlink("/etc", filepath.Join(d, "x")) }, "x: is a symlink"},
		"fifo":        {func(d string) error { return syscall.Mkfifo(filepath.Join(d, "x"), 0o600) }, "x: is a special file"},
		"odd name":    {func(d string) error { return os.WriteFile(filepath.Join(d, "a b"), nil, 0o600) }, "bad name"},
		"hidden":      {func(d string) error { return os.WriteFile(filepath.Join(d, ".x"), nil, 0o600) }, "bad name"},
		"two modes": {func(d string) error {
			return errors.Join(os.WriteFile(filepath.Join(d, "a"), nil, 0o600), os.WriteFile(filepath.Join(d, "b"), nil, 0o700))
		}, "same content as another file"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Scan(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}
