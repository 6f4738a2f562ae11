package install

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"popfleet/agents/share"
)

// keeper writes the image down while it is unpacked, for nodes of the same PoP (agents/share): in rescue's memory, where
// they can read along, and once its digest is right on the new disk, for those that come after the restart. It never
// fails an installation: without room there is no copy. A nil keeper keeps nothing.
type keeper struct {
	f      *os.File
	part   string
	final  string
	onDisk string // below the new root
}

// reserve is what stays free of the machine's memory beside the copy.
const reserve = 256 << 20

func (j *job) keeper() *keeper {
	k, err := newKeeper("/", j.spec.Image.SHA256, j.spec.Image.SizeBytes)
	if err != nil {
		j.log.Info("no copy of the image is kept for other nodes", "why", err)
		return nil
	}
	return k
}

// newKeeper begins a copy below dir, which is / but in tests.
func newKeeper(dir, digest string, size int64) (*keeper, error) {
	final := filepath.Join(dir, fmt.Sprintf(share.ImageInRescue, digest))
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return nil, err
	}
	part := final + share.Part
	for _, old := range []string{part, final} { // of an unpacking before this one
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := room(filepath.Dir(final), size); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &keeper{f: f, part: part, final: final, onDisk: fmt.Sprintf(share.ImageOnDisk, digest)}, nil
}

// room asks for the copy's size in the folder's file system and, because that is memory, for a reserve in the machine's.
func room(dir string, size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < size+16<<20 {
		return fmt.Errorf("%s has %d MB free", dir, free>>20)
	}
	var m unix.Sysinfo_t
	if err := unix.Sysinfo(&m); err != nil {
		return err
	}
	if free := int64(m.Freeram+m.Bufferram) * int64(m.Unit); free < size+reserve {
		return fmt.Errorf("the machine has %d MB of memory free", free>>20)
	}
	return nil
}

func (k *keeper) write(p []byte) {
	if k == nil || k.f == nil {
		return
	}
	if _, err := k.f.Write(p); err != nil {
		k.drop()
	}
}

// whole gives the copy its name, and the new system one of its own.
func (k *keeper) whole(root string) error {
	if k == nil || k.f == nil {
		return nil
	}
	if err := os.Rename(k.part, k.final); err != nil {
		return err
	}
	to := filepath.Join(root, k.onDisk)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(k.f, 0, 1<<62))
	if err = errors.Join(err, out.Close(), k.f.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	k.f = nil
	return nil
}

// drop takes an incomplete copy away; its readers see that it lost its name.
func (k *keeper) drop() {
	if k == nil || k.f == nil {
		return
	}
	_ = os.Remove(k.part) // memory: nothing could be done about it here
	_ = k.f.Close()
	k.f = nil
}
