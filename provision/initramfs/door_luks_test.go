package initramfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheDoorAndTheRealCryptsetup: the exit codes that the door goes by are those of the program that a node has, on a
// real LUKS2 header in a file.
func TestTheDoorAndTheRealCryptsetup(t *testing.T) {
	cryptsetup, err := exec.LookPath("cryptsetup")
	if err != nil {
		t.Skip("no cryptsetup on this machine")
	}
	d := newDoor(t)
	header := filepath.Join(d.root, "header")
	d.put("header", "", 0o600)
	if err := os.Truncate(header, 32<<20); err != nil {
		t.Fatal(err)
	}
	format := exec.Command(cryptsetup, "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", "-", header)
	format.Stdin = strings.NewReader(rightKey)
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Remove(filepath.Join(d.root, "bin/cryptsetup")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cryptsetup, filepath.Join(d.root, "bin/cryptsetup")); err != nil {
		t.Fatal(err)
	}
	d.put("cryptroot/crypttab", "fleet-root "+header+" none luks,discard,initramfs\n", 0o644)
	if words, code := d.knock(strings.NewReader("a key that is not it")); code != 65 || !strings.Contains(words, "fleet: wrong key") || d.count("tries") != 0 {
		t.Errorf("a wrong key: exit %d, %d tries: %s", code, d.count("tries"), words)
	}
	d.put("proc/uptime", "500.00 90.00\n", 0o644)
	if words, code := d.knock(strings.NewReader(rightKey + "\n")); code != 0 || d.count("tries") != 1 {
		t.Errorf("the right key: exit %d, %d tries: %s", code, d.count("tries"), words)
	}
	d = newDoor(t)
	if err := os.Remove(filepath.Join(d.root, "bin/cryptsetup")); err != nil {
		t.Fatal(err)
	}
	d.put("header", "no header at all", 0o600)
	d.put("cryptroot/crypttab", "fleet-root "+filepath.Join(d.root, "header")+" none luks\n", 0o644)
	if words, code := d.knock(strings.NewReader(rightKey)); code != 75 || !strings.Contains(words, "could not be tried") || d.count("tries") != 0 {
		t.Errorf("a disk without a header: exit %d: %s", code, words)
	}
}
