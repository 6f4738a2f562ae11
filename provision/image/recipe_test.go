package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/provision/initramfs"
)

func TestRecipeNamesContent(t *testing.T) {
	recipe := func(o Options) string {
		t.Helper()
		o.CacheDir = t.TempDir()
		o, err := o.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		r, err := o.recipe()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if recipe(Options{}) != recipe(Options{Mirror: "http://mirror.test/debian", Suite: "bookworm"}) {
		t.Error("a mirror changes the recipe")
	}
	if recipe(Options{}) == recipe(Options{Flavour: "amd64"}) {
		t.Error("another kernel does not change the recipe")
	}
	if _, err := (Options{Flavour: "rt"}).withDefaults(); err == nil {
		t.Error("an unknown flavour was accepted")
	}
}

// TestDamagedImageIsNoImage: a file that is not what was built is never handed out.
func TestDamagedImageIsNoImage(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"image.tar.zst": "hello", "manifest": "a=1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	built, err := describe(dir, "r", 0)
	if err != nil {
		t.Fatal(err)
	}
	if img, err := load(dir); err != nil || img.SHA256 != built.SHA256 || img.SizeBytes != 5 || img.Manifest[0] != "a=1" {
		t.Fatalf("%+v, %v", img, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "image.tar.zst"), []byte("hellO"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
}

func TestFollowTellsSteps(t *testing.T) {
	var steps []string
	var log strings.Builder
	tail := follow(strings.NewReader("step: one\nnoise\nstep: two\nE: broken\n"), &log, func(s string) { steps = append(steps, s) })
	if strings.Join(steps, " ") != "one two" || tail[len(tail)-1] != "E: broken" || !strings.Contains(log.String(), "noise") {
		t.Errorf("%v %v %q", steps, tail, log.String())
	}
}

// TestScriptsAreThere: the build script and the initramfs know each other's files by name.
func TestScriptsAreThere(t *testing.T) {
	script, err := recipeFiles.ReadFile("build.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fleet-unlock", "fleet-door", "shares.sh", "net.sh", "hook", "modules"} {
		if _, err := fs.Stat(initramfs.Files(), name); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(script), "$FILES/initramfs/"+name) {
			t.Errorf("build.sh does not install %s", name)
		}
	}
}
