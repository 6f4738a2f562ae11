package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"popfleet/playbooks/spec"
)

// Dir is the worker's folder, on the rescue system's tmpfs: it ends with the boot that it describes.
const Dir = "/run/fleet/install"

// folder is where worker and handler meet:
//
//	lock         held by the worker as long as it lives
//	state.json   what the worker is at
//	events       its events, one a line; the last is result or error
//	need         the image the worker waits for, while it waits
//	image.sock   where it takes the image
//	log          its stdout and stderr
type folder string

func (f folder) file(name string) string { return filepath.Join(string(f), name) }

// state says whose work lies in the folder. It holds no secret.
type state struct {
	Run string `json:"run"`
	PID int    `json:"pid"`
}

func (f folder) readState() (state, error) {
	var s state
	b, err := os.ReadFile(f.file("state.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

func (f folder) writeState(s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return replace(f.file("state.json"), b)
}

// need is the image the worker waits for; false when it does not wait.
func (f folder) need() (spec.Blob, bool) {
	var b spec.Blob
	data, err := os.ReadFile(f.file("need"))
	if err != nil || json.Unmarshal(data, &b) != nil {
		return spec.Blob{}, false
	}
	return b, true
}

// replace writes a small file as a whole. It is on tmpfs: no sync.
func replace(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

var errBusy = errors.New("a worker is running")

// lock takes the worker's lock, or returns errBusy.
func (f folder) lock() (*os.File, error) {
	l, err := os.OpenFile(f.file("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		l.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errBusy
		}
		return nil, fmt.Errorf("lock %s: %w", f.file("lock"), err)
	}
	return l, nil
}

// busy tells whether a worker lives.
func (f folder) busy() (bool, error) {
	l, err := f.lock()
	if errors.Is(err, errBusy) {
		return true, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return false, l.Close()
}
