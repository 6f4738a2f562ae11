package initramfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMirrorIsStartedWithAMemberLess runs the script in a tree of its own, where sleep counts seconds, mdadm makes the
// root's device appear, and a disk may come late.
func TestMirrorIsStartedWithAMemberLess(t *testing.T) {
	const crypttab = "fleet-root UUID=2b3c33b7 none luks,discard,initramfs\n"
	for name, c := range map[string]struct {
		crypttab string
		state    string // of the array; "" is no array
		comes    string // second at which the root's device is there by itself
		slept    int
		ran      bool
	}{
		"whole":              {crypttab, "clean", "0", 0, false},
		"a disk comes late":  {crypttab, "inactive", "12", 12, false},
		"a disk is missing":  {crypttab, "inactive", "never", 20, true},
		"one disk, late":     {crypttab, "", "40", 40, false},
		"nothing ever comes": {crypttab, "", "never", 60, false},
		"no per-node part":   {"fleet-root LABEL=fleet-luks none luks\n", "inactive", "never", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put := func(path, text string) {
				path = filepath.Join(root, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
					t.Fatal(err)
				}
			}
			put("cryptroot/crypttab", c.crypttab)
			put("dev/md127", "")
			put("dev/kmsg", "")
			if c.state != "" {
				put("sys/block/md127/md/array_state", c.state+"\n")
			}
			put("slept", "")
			put("bin/sleep", "#!/bin/sh\necho s >>"+root+"/slept\n")
			put("sbin/blkid", "#!/bin/sh\n[ \"$3\" = UUID=2b3c33b7 ] || exit 4\n[ -e "+root+"/ran ] && exit 0\n"+
				"[ "+c.comes+" != never ] && [ \"$(wc -l <"+root+"/slept)\" -ge "+c.comes+" ]\n")
			put("sbin/mdadm", "#!/bin/sh\necho \"$*\" >>"+root+"/ran\n")
			text, err := fs.ReadFile(Files(), "fleet-mirror")
			if err != nil {
				t.Fatal(err)
			}
			put("fleet-mirror", string(text))
			cmd := exec.Command("sh", filepath.Join(root, "fleet-mirror"))
			cmd.Env = append(os.Environ(), "FLEET_MIRROR_ROOT="+root)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			slept, _ := os.ReadFile(filepath.Join(root, "slept"))
			ran, _ := os.ReadFile(filepath.Join(root, "ran"))
			if n := strings.Count(string(slept), "s"); n != c.slept || (len(ran) > 0) != c.ran {
				t.Errorf("%d s, mdadm %q; want %d s, %v", n, ran, c.slept, c.ran)
			}
			if c.ran && string(ran) != "-q --run "+root+"/dev/md127\n" {
				t.Errorf("mdadm %q", ran)
			}
		})
	}
}
