// Package runlock lets one run at a time change a fleet from one operator's folder. The lock is flock(2) on a file that
// names its holder, so it ends with the process, however that ends, and there is nothing to renew or to clean up.
// It does not wait: who finds the lock held is told by whom. Over a network file system it is as good as that
// system's flock.
package runlock

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"time"
)

// Holder is who holds the lock.
type Holder struct {
	User    string    `json:"user"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Command string    `json:"command"` // without secrets; shown to others
	Since   time.Time `json:"since"`   // set by Acquire when zero
}

// Me is this process as a holder.
func Me(command string) Holder {
	h := Holder{User: "unknown", Host: "unknown", PID: os.Getpid(), Command: command}
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	if name, err := os.Hostname(); err == nil {
		h.Host = name
	}
	return h
}

// ErrHeld is the refusal: another run holds the lock. Holder is zero when it could not be read.
type ErrHeld struct{ Holder Holder }

func (e *ErrHeld) Error() string {
	h := e.Holder
	if h.PID == 0 {
		return "locked by another run (wait for it to end; the lock ends with its process)"
	}
	return fmt.Sprintf("locked by %s@%s, pid %d, %q, since %s (wait for it to end; the lock ends with its process)",
		h.User, h.Host, h.PID, h.Command, h.Since.UTC().Format(time.RFC3339))
}

// Lock is held until Release, or the end of the process. Keep it: one that nothing refers to is closed by the collector.
type Lock struct{ file *os.File }

// Acquire takes the lock in dir (file "lock", made when absent) or returns an [*ErrHeld] at once.
func Acquire(dir string, h Holder) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("run lock: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644) // close-on-exec: a child never keeps it
	if err != nil {
		return nil, fmt.Errorf("run lock: %w", err)
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &ErrHeld{readHolder(path)}
		}
		return nil, fmt.Errorf("run lock %s: %w", path, err)
	}
	if h.Since.IsZero() {
		h.Since = time.Now()
	}
	l := &Lock{f}
	if err := l.write(h); err != nil {
		f.Close()
		return nil, fmt.Errorf("run lock %s: %w", path, err)
	}
	return l, nil
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (l *Lock) write(h Holder) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err = l.file.WriteAt(append(text, '\n'), 0)
	return err
}

// Release lets go. The file stays: to remove it would let two runs lock two files of one name.
func (l *Lock) Release() error {
	return errors.Join(l.file.Truncate(0), l.file.Close())
}

// readHolder asks a few times: the holder writes its name just after it got the lock.
func readHolder(path string) Holder {
	var h Holder
	for range 20 {
		text, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(text, &h) == nil {
			return h
		}
		time.Sleep(10 * time.Millisecond)
	}
	return Holder{}
}
