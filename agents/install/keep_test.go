package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeeper: the copy has its name only when it is whole, and a dropped one is nowhere.
func TestKeeper(t *testing.T) {
	memory, root := t.TempDir(), t.TempDir()
	digest := strings.Repeat("ab", 32)
	inRescue := filepath.Join(memory, "run/fleet/install/image-"+digest)
	k, err := newKeeper(memory, digest, 10)
	if err != nil {
		t.Fatal(err)
	}
	k.write([]byte("half"))
	if b, err := os.ReadFile(inRescue + ".part"); err != nil || string(b) != "half" {
		t.Errorf("while it grows: %q, %v", b, err)
	}
	k.drop()
	if left, _ := filepath.Glob(inRescue + "*"); len(left) > 0 {
		t.Errorf("dropped, but %v is there", left)
	}
	if k, err = newKeeper(memory, digest, 10); err != nil {
		t.Fatal(err)
	}
	k.write([]byte("the "))
	k.write([]byte("whole"))
	if err := k.whole(root); err != nil {
		t.Fatal(err)
	}
	k.drop() // as unpackOnce does at its end
	for _, path := range []string{inRescue, filepath.Join(root, "var/lib/fleet/image", digest)} {
		if b, err := os.ReadFile(path); err != nil || string(b) != "the whole" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}

// TestKeeperNeedsRoom: without room there is no copy, and using none is safe.
func TestKeeperNeedsRoom(t *testing.T) {
	k, err := newKeeper(t.TempDir(), strings.Repeat("ab", 32), 1<<50)
	if err == nil {
		t.Fatal("a copy of a petabyte has room")
	}
	k.write([]byte("x"))
	k.drop()
	if err := k.whole(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// TestLeaveBlob: the agent lies under its digest, and looks like a blob that apply verified.
func TestLeaveBlob(t *testing.T) {
	program, dir := filepath.Join(t.TempDir(), "agent"), filepath.Join(t.TempDir(), "blobs")
	if err := os.WriteFile(program, []byte("agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := leaveBlob(program, dir); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "d4f0bc5a29de06b510f9aa428f1eedba926012b591fef7a518e776a7c9bd1824" {
		t.Fatalf("%v, %v", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o755 || !info.ModTime().Equal(verified) {
		t.Errorf("%v, %v", info, err)
	}
}
