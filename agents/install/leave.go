package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// leaveAgent puts this program where the new system looks for content (docs/formats/release.md), so that the operator
// need not send it a second time; a release that has the same agent finds it there too. Who uses it checks its digest.
func (j *job) leaveAgent() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return leaveBlob(self, filepath.Join(j.root, "opt/fleet/blobs"))
}

// verified is the modification time of a blob whose digest was checked, as apply writes it.
var verified = time.Unix(1_000_000_000, 0)

// leaveBlob copies a program into a folder under its digest.
func leaveBlob(program, dir string) error {
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(dir, ".agent-*")
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err == nil {
		err = os.Chtimes(out.Name(), verified, verified)
	}
	if err == nil {
		err = os.Rename(out.Name(), filepath.Join(dir, hex.EncodeToString(h.Sum(nil))))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("leave the agent behind: %w", err), os.Remove(out.Name()))
	}
	return nil
}
