package oplog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/vfs"
)

// A sequence that was used once must never be used again: peers that have it would take the new entry for the old one,
// and documents would differ for ever. Pebble forgets the end of its write-ahead log when one bit in it flips, so that
// what was issued is kept beside it, in a file of its own, ahead of its use.
const leaseFile = "lease"

// ErrLease is a log that can't tell which sequences it has used.
var ErrLease = errors.New("the log's lease file is missing or damaged: reseed this node under a new origin")

// lease is the file's content.
type lease struct {
	mu  sync.Mutex
	end uint64 // sequences up to here may have been used
}

func (le *lease) last() uint64 {
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.end
}

// Lease is n sequences of the own origin that were never used. What is leased and not used leaves a hole that Void
// entries fill; see Release.
func (l *Log) Lease(n uint64) (Span, error) {
	l.tmu.Lock()
	highest := l.track(l.opts.Origin).highest()
	l.tmu.Unlock()
	l.lease.mu.Lock()
	defer l.lease.mu.Unlock()
	switch {
	case n == 0:
		return Span{}, errors.New("lease of no sequence: expected at least one")
	case !l.ok():
		return Span{}, ErrFailed
	}
	span := Span{max(l.lease.end, highest) + 1, max(l.lease.end, highest) + n}
	if err := writeLease(l.fs, l.dir, span.To); err != nil {
		return Span{}, fmt.Errorf("lease %d sequences: %w", n, err)
	}
	l.lease.end = span.To
	return span, nil
}

// Release gives back the end of the last lease: no sequence above last was used, nor will be.
func (l *Log) Release(last uint64) error {
	l.lease.mu.Lock()
	defer l.lease.mu.Unlock()
	if last >= l.lease.end {
		return nil
	}
	if err := writeLease(l.fs, l.dir, last); err != nil {
		return fmt.Errorf("release sequences after %d: %w", last, err)
	}
	l.lease.end = last
	return nil
}

// highest is the last sequence that is known, beyond holes too.
func (t *track) highest() uint64 {
	last := t.Head
	for s := range t.beyond {
		last = max(last, s)
	}
	return last
}

func writeLease(fs vfs.FS, dir string, end uint64) error {
	path := fs.PathJoin(dir, leaseFile)
	if err := writeSynced(fs, path+".new", leaseText(end)); err != nil {
		return err
	}
	if err := fs.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(fs vfs.FS, path, text string) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	return errors.Join(err, f.Sync(), f.Close())
}

func leaseText(end uint64) string {
	text := fmt.Sprintf("lease 1 %d", end)
	return fmt.Sprintf("%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

// readLease is os.ErrNotExist in a new log.
func readLease(fs vfs.FS, dir string) (uint64, error) {
	f, err := fs.Open(fs.PathJoin(dir, leaseFile))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 128))
	if err != nil {
		return 0, err
	}
	var end uint64
	if _, err := fmt.Sscanf(string(raw), "lease 1 %d", &end); err != nil || leaseText(end) != string(raw) {
		return 0, ErrLease
	}
	return end, nil
}

// openLease reads the file, or makes it in a log that is new.
func (l *Log) openLease(isNew bool) error {
	end, err := readLease(l.fs, l.dir)
	switch {
	case err == nil:
		l.lease.end = end
		return nil
	case errors.Is(err, os.ErrNotExist) && isNew:
		return writeLease(l.fs, l.dir, 0)
	case errors.Is(err, os.ErrNotExist):
		return ErrLease
	}
	return fmt.Errorf("lease file: %w", err)
}
