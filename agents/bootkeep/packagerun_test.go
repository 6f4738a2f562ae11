package bootkeep

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"popfleet/agents/bootcheck"
	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

// bootOf is a keeper whose node boots from the files of boot/.
func bootOf(root string) Keeper {
	k := Keeper{Checker: bootcheck.Checker{Host: facts.Host{Root: root}}, Log: slog.New(slog.DiscardHandler)}
	k.Manifest = func(context.Context) (m spec.BootManifest, err error) {
		files, err := filepath.Glob(filepath.Join(root, "boot/*"))
		whole := sha256.New()
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				return m, err
			}
			sum := sha256.Sum256(data)
			m.Files = append(m.Files, spec.BootFile{Path: "boot/" + filepath.Base(path), SizeBytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
			fmt.Fprintf(whole, "%s %x\n", path, sum)
		}
		m.Digest = hex.EncodeToString(whole.Sum(nil))
		return m, err
	}
	return k
}

// runs is a node on which package runs can be played.
type runs struct {
	Keeper
	t *testing.T
}

func newRuns(t *testing.T) runs {
	r := runs{bootOf(t.TempDir()), t}
	r.write("proc/sys/kernel/random/boot_id", "b00t\n")
	r.write("boot/vmlinuz-1", "one")
	r.write("run/none", "")
	r.write("var/log/dpkg.log", "2026-11-22 06:00:00 install older:amd64 <none> 1\n")
	return r
}

func (r runs) write(path, data string) {
	r.t.Helper()
	path = r.path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// process is there from now on, with a start time.
func (r runs) process(pid int, start string) {
	r.write(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (dpkg (x) y) S 1 %s%s 0 0\n", pid, strings.Repeat("0 ", 17), start))
}

func (r runs) gone(pid int) {
	if err := os.RemoveAll(r.path(fmt.Sprintf("proc/%d", pid))); err != nil {
		r.t.Fatal(err)
	}
}

func (r runs) begin(pid int) {
	r.t.Helper()
	r.process(pid, strconv.Itoa(pid*10))
	if err := r.BeginRun(r.t.Context(), pid); err != nil {
		r.t.Fatal(err)
	}
}

// upgrade is what a package does inside a run.
func (r runs) upgrade(name, version string) {
	r.t.Helper()
	r.write("boot/vmlinuz-"+version, name)
	f, err := os.OpenFile(r.path(dpkgLog), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "2026-11-23 02:42:39 startup archives install\n2026-11-23 02:42:39 upgrade %s:amd64 1 %s\n", name, version)
}

func (r runs) end(pid int) *spec.BootChange {
	r.t.Helper()
	c, err := r.EndRun(r.t.Context(), pid)
	if err != nil {
		r.t.Fatal(err)
	}
	r.gone(pid)
	return c
}

func (r runs) changes() spec.BootChanges {
	r.t.Helper()
	c, err := r.Changes(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestAPackageRunDeclaresWhatItChanged(t *testing.T) {
	r := newRuns(t)
	if c := r.changes(); c.UnderWay != "" || c.Manifest != nil || len(c.Changes) != 0 {
		t.Errorf("nothing happened yet: %+v", c)
	}
	r.begin(7)
	before, _ := r.Manifest(t.Context())
	if c := r.changes(); !strings.Contains(c.UnderWay, "dpkg (pid 7)") || c.Manifest != nil {
		t.Errorf("during the run: %+v", c)
	}
	r.upgrade("linux-image-amd64", "2")
	said := r.end(7)
	now, _ := r.Manifest(t.Context())
	c := r.changes()
	if said == nil || c.BootID != "b00t" || c.UnderWay != "" || len(c.Changes) != 1 || c.Manifest == nil || c.Manifest.Digest != now.Digest {
		t.Fatalf("%+v, then %+v", said, c)
	}
	if one := c.Changes[0]; one.From.Digest != before.Digest || len(one.From.Files) != 1 || one.To != now.Digest || !slices.Equal(one.Packages, []string{"linux-image-amd64 2"}) {
		t.Errorf("declared %+v", one)
	}
	if got := (facts.Host{Root: r.Checker.Host.Root}).BootChanged(); got != now.Digest {
		t.Errorf("the report says %q", got)
	}
	r.begin(8)
	r.upgrade("one", "1") // writes what is there already
	if said := r.end(8); said != nil || len(r.changes().Changes) != 1 {
		t.Errorf("a run that changed nothing declares %+v", said)
	}
}

// TestWhatIsNotDeclared: changes that no package made, that were made between runs, and those of a run that was killed.
func TestWhatIsNotDeclared(t *testing.T) {
	t.Run("no package is named", func(t *testing.T) {
		r := newRuns(t)
		r.begin(7)
		r.write("boot/evil", "evil")
		if c, err := r.EndRun(t.Context(), 7); c != nil || err == nil || !strings.Contains(err.Error(), "names no package") {
			t.Errorf("declared %+v, %v", c, err)
		}
		if c := r.changes(); len(c.Changes) != 0 || c.UnderWay != "" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("between two runs", func(t *testing.T) {
		r := newRuns(t)
		r.begin(7)
		r.upgrade("linux-image-amd64", "2")
		r.end(7)
		r.write("boot/evil", "evil")
		r.begin(8)
		r.upgrade("linux-image-amd64", "3")
		r.end(8)
		if c := r.changes(); len(c.Changes) != 2 || c.Changes[1].From.Digest == c.Changes[0].To {
			t.Errorf("the chain is not broken: %+v", c)
		}
	})
	t.Run("killed", func(t *testing.T) {
		r := newRuns(t)
		r.begin(7)
		r.upgrade("linux-image-amd64", "2")
		r.gone(7)
		if c := r.changes(); c.UnderWay != "" || len(c.Changes) != 0 {
			t.Errorf("%+v", c)
		}
		r.begin(8)
		r.upgrade("linux-image-amd64", "3")
		if c := r.end(8); c == nil || len(c.From.Files) != 2 {
			t.Errorf("the run after: %+v", c)
		}
	})
	t.Run("its pid is used again", func(t *testing.T) {
		r := newRuns(t)
		r.begin(7)
		r.upgrade("linux-image-amd64", "2")
		r.process(7, "999")
		if c := r.changes(); c.UnderWay != "" {
			t.Errorf("under way: %s", c.UnderWay)
		}
		if c, err := r.EndRun(t.Context(), 7); c != nil || err == nil {
			t.Errorf("another process ended it: %+v", c)
		}
	})
	t.Run("of another boot", func(t *testing.T) {
		r := newRuns(t)
		r.begin(7)
		r.upgrade("linux-image-amd64", "2")
		r.end(7)
		r.write("proc/sys/kernel/random/boot_id", "an0ther\n")
		if c := r.changes(); len(c.Changes) != 0 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("the end without the beginning", func(t *testing.T) {
		r := newRuns(t)
		r.process(7, "1")
		if c, err := r.EndRun(t.Context(), 7); c != nil || err == nil || !strings.Contains(err.Error(), "beginning was not seen") {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// TestTwoRunsAtOnce: the second one's dpkg is refused the lock and says no end.
func TestTwoRunsAtOnce(t *testing.T) {
	r := newRuns(t)
	r.begin(7)
	r.begin(8)
	r.upgrade("linux-image-amd64", "2")
	r.gone(8)
	c := r.end(7)
	if c == nil || len(c.From.Files) != 1 || r.changes().UnderWay != "" {
		t.Errorf("%+v", c)
	}
}

func TestManyRunsKeepTheirBeginning(t *testing.T) {
	r := newRuns(t)
	first, _ := r.Manifest(t.Context())
	for i := range 3 * spec.MaxBootChanges {
		r.begin(7)
		r.upgrade("linux-image-amd64", strconv.Itoa(i+2))
		r.end(7)
	}
	c := r.changes()
	if len(c.Changes) != spec.MaxBootChanges || c.Changes[0].From.Digest != first.Digest || c.Changes[len(c.Changes)-1].To != c.Manifest.Digest {
		t.Fatalf("%d changes", len(c.Changes))
	}
	for i, one := range c.Changes[1:] {
		if one.From.Digest != c.Changes[i].To {
			t.Errorf("change %d does not follow", i+1)
		}
	}
	if n := len(c.Changes[0].Packages); n != 2*spec.MaxBootChanges+1 {
		t.Errorf("%d packages are named in the joined ones", n)
	}
}

func TestPackagesInTheLog(t *testing.T) {
	log := `2026-11-23 02:42:39 startup archives install
2026-11-23 02:42:39 install linux-image-6.1.0-32-amd64:amd64 <none> 6.1.123-1
2026-11-23 02:42:39 status half-installed linux-image-6.1.0-32-amd64:amd64 6.1.123-1
2026-11-23 02:42:40 upgrade linux-image-amd64:amd64 6.1.119-1 6.1.123-1
2026-11-23 02:42:41 configure linux-image-amd64:amd64 6.1.123-1 <none>
2026-11-23 02:42:42 remove old:all 1 <none>
2026-11-23 02:42:43 trigproc initramfs-tools:all 0.142 <none>
2026-11-23 02:42:44 upgrade bad;name:all 1 2
2026-11-23 02:42:45 upgrade cut:all`
	want := []string{"linux-image-6.1.0-32-amd64 6.1.123-1", "linux-image-amd64 6.1.123-1", "old removed", "initramfs-tools 0.142"}
	if got, err := packagesIn(strings.NewReader(log)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	var many strings.Builder
	for i := range 3 * spec.MaxRunPackages {
		fmt.Fprintf(&many, "2026-11-23 02:42:39 install p%d:all <none> 1\n", i)
	}
	if got, _ := packagesIn(strings.NewReader(many.String())); len(got) != spec.MaxRunPackages+1 || got[spec.MaxRunPackages] != andMore {
		t.Errorf("%d named", len(got))
	}
}

func FuzzPackagesIn(f *testing.F) {
	f.Add([]byte("2026-11-23 02:42:39 upgrade linux-image-amd64:amd64 6.1.119-1 6.1.123-1\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		got, _ := packagesIn(bytes.NewReader(log))
		if len(got) > spec.MaxRunPackages+1 {
			t.Fatalf("%d named", len(got))
		}
		for _, p := range got {
			if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q", p)
			}
		}
	})
}

const asHook = "FLEET_TEST_PACKAGE_RUN"

// hook is the test binary as dpkg calls it.
func hook() {
	pid, err := strconv.Atoi(os.Args[2])
	k := bootOf(os.Getenv(asHook))
	switch {
	case err != nil:
	case os.Args[1] == "begin":
		err = k.BeginRun(context.Background(), pid)
	default:
		_, err = k.EndRun(context.Background(), pid)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestARealDpkg runs dpkg in a folder, with a package that changes /boot and one that fails in the middle of it.
func TestARealDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs dpkg, and root")
	}
	r := newRuns(t)
	root := r.path("/")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"info", "updates", "triggers", "parts"} {
		r.write("inst/var/lib/dpkg/"+dir+"/.keep", "")
	}
	r.write("inst/var/lib/dpkg/status", "")
	pack := func(name, postinst string) string {
		r.write(name+"/DEBIAN/control", "Package: "+name+"\nVersion: 2\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n")
		r.write(name+"/DEBIAN/postinst", "#!/bin/sh\n"+postinst+"\n")
		if err := os.Chmod(r.path(name+"/DEBIAN/postinst"), 0o755); err != nil {
			t.Fatal(err)
		}
		deb := r.path(name + ".deb")
		if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "-b", r.path(name), deb).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return deb
	}
	// The hook's process is a real one, so its start time is copied to where the keeper looks.
	call := func(verb string) string {
		return fmt.Sprintf("mkdir -p %s/proc/$PPID && cat /proc/$PPID/stat > %s/proc/$PPID/stat && %s=%s %s %s $PPID", root, root, asHook, root, self, verb)
	}
	dpkg := func(args ...string) error {
		args = append([]string{"--root=" + r.path("inst"), "--log=" + r.path(dpkgLog), "--force-script-chrootless", "--no-triggers",
			"--pre-invoke=" + call("begin"), "--post-invoke=" + call("end")}, args...)
		out, err := exec.CommandContext(t.Context(), "dpkg", args...).CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := dpkg("-i", pack("kernel", "echo 2 > "+root+"/boot/vmlinuz-2")); err != nil {
		t.Fatal(err)
	}
	if err := dpkg("-i", pack("broken", "echo 3 > "+root+"/boot/vmlinuz-3; exit 1")); err == nil {
		t.Error("the broken package did not fail")
	}
	if err := dpkg("--purge", "kernel"); err != nil {
		t.Fatal(err)
	}
	c := r.changes()
	if len(c.Changes) != 2 || c.UnderWay != "" {
		t.Fatalf("%+v", c)
	}
	for i, want := range []string{"kernel 2", "broken 2"} {
		if got := c.Changes[i].Packages; !slices.Equal(got, []string{want}) {
			t.Errorf("change %d was made by %q", i, got)
		}
	}
	if c.Changes[1].From.Digest != c.Changes[0].To || c.Changes[1].To != c.Manifest.Digest {
		t.Error("the chain is broken")
	}
}
