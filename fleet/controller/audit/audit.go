// Package audit is the append-only record of every decision about a disk key: who, which node, the verdict, the reasons
// and the evidence. One file, one line a decision, each line chained to the one before by SHA-256, on disk when Append
// returns. Several processes may append to one file.
//
// Who can write the file can cut off its end or write it all anew; what they can't do is to change or take out a line
// in the middle unseen by someone who knows a later line's hash. The format is drawn in docs/formats/audit.md.
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Entry is one decision. Evidence is JSON without secrets.
type Entry struct {
	V        int             `json:"v"`   // 1
	Seq      int64           `json:"seq"` // from 1
	Time     time.Time       `json:"time"`
	Who      string          `json:"who"`
	Node     string          `json:"node,omitempty"`
	Verdict  string          `json:"verdict"`
	Why      string          `json:"why,omitempty"`
	Reasons  json.RawMessage `json:"reasons,omitempty"`  // findings of the rules
	Evidence json.RawMessage `json:"evidence,omitempty"` // what they decided on
}

// line is an entry as it is stored. Entry is kept as it came: the hash is over its bytes.
type line struct {
	Prev  string          `json:"prev"`
	Hash  string          `json:"hash"`
	Entry json.RawMessage `json:"entry"`
}

// Verdicts besides those of the policy.
const (
	VerdictOpened  = "opened"  // the machine took its key
	VerdictFailed  = "failed"  // it did not, or nobody knows
	VerdictGood    = "good"    // the boot was proven
	VerdictSuspect = "suspect" // it was not
	VerdictRotated = "rotated" // the machine key was exchanged
	VerdictRenewed = "renewed" // a package run changed what it boots from, and that was recorded
	VerdictOrder   = "order"   // a person said something of the node
)

// genesis stands before the first line.
const genesis = "0000000000000000000000000000000000000000000000000000000000000000"

// maxLineBytes bounds one line; evidence that is larger is refused.
const maxLineBytes = 256 << 10

// Log is the file at a path; nothing is open between two calls.
type Log struct{ Path string }

// Append writes one decision; Seq, V and an absent Time are set here. It is on disk when Append returns.
func (l Log) Append(e Entry) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("audit log %s: %w", l.Path, err)
		}
	}()
	f, fresh, err := openLocked(l.Path)
	if err != nil {
		return err
	}
	defer f.Close() // lets go of the lock
	last, end, err := tail(f)
	if err != nil {
		return err
	}
	text, err := next(last, e)
	if err != nil {
		return err
	}
	if err := writeAt(f, end, text); err != nil {
		return err
	}
	if fresh {
		return syncDir(filepath.Dir(l.Path))
	}
	return nil
}

func openLocked(path string) (f *os.File, fresh bool, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		fresh = true
	}
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return f, fresh, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, false, err
		}
	}
}

// position is where the chain is.
type position struct {
	seq  int64
	hash string
}

// next makes the line after last.
func next(last position, e Entry) ([]byte, error) {
	e.V, e.Seq = 1, last.seq+1
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	entry, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(line{Prev: last.hash, Hash: chain(last.hash, entry), Entry: entry})
	if err != nil {
		return nil, err
	}
	if len(text) >= maxLineBytes {
		return nil, fmt.Errorf("an entry of %d bytes is too large", len(text))
	}
	return append(text, '\n'), nil
}

func chain(prev string, entry []byte) string {
	h := sha256.New()
	io.WriteString(h, prev)
	h.Write(entry)
	return hex.EncodeToString(h.Sum(nil))
}

// writeAt puts text behind the last whole line. What a crash left there was never acknowledged, and goes.
func writeAt(f *os.File, end int64, text []byte) error {
	if err := f.Truncate(end); err != nil {
		return err
	}
	if _, err := f.WriteAt(text, end); err != nil {
		return err
	}
	return f.Sync()
}

// tail finds the last whole line and where it ends, reading from the end of the file.
func tail(f *os.File) (last position, end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return last, 0, err
	}
	from := max(0, st.Size()-2*maxLineBytes)
	data := make([]byte, st.Size()-from)
	if _, err := f.ReadAt(data, from); err != nil && !errors.Is(err, io.EOF) {
		return last, 0, err
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	end = from + int64(whole)
	if whole == 0 {
		if from > 0 {
			return last, 0, errors.New("its end is no line")
		}
		return position{0, genesis}, 0, nil
	}
	start := bytes.LastIndexByte(data[:whole-1], '\n') + 1
	l, e, err := parse(data[start : whole-1])
	if err != nil {
		return last, 0, fmt.Errorf("its last line cannot be read: %w (move the file away to begin another)", err)
	}
	return position{e.Seq, l.Hash}, end, nil
}

func parse(text []byte) (l line, e Entry, err error) {
	if err := json.Unmarshal(text, &l); err != nil {
		return l, e, err
	}
	return l, e, json.Unmarshal(l.Entry, &e)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// BrokenError says where the chain does not hold.
type BrokenError struct {
	Line int
	Why  string
}

func (e *BrokenError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Why) }

// Read calls each for every entry, oldest first, and checks the chain. It returns the hash of the last line, for people
// to write down elsewhere, and a [*BrokenError] at the first line that does not follow from the one before; entries up
// to there were given. A file that does not exist is empty. A last line that a crash cut short is no entry.
func (l Log) Read(each func(Entry) error) (head string, err error) {
	f, err := os.Open(l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return genesis, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	return read(f, each)
}

func read(r io.Reader, each func(Entry) error) (head string, err error) {
	in := bufio.NewReaderSize(r, maxLineBytes)
	at := position{0, genesis}
	for n := 1; ; n++ {
		text, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF): // nothing, or a line without an end
			return at.hash, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return at.hash, &BrokenError{n, "longer than any line that was written"}
		case err != nil:
			return at.hash, err
		}
		e, err := follows(at, text)
		if err != nil {
			return at.hash, &BrokenError{n, err.Error()}
		}
		at = position{e.Seq, e.hash}
		if err := each(e.Entry); err != nil {
			return at.hash, err
		}
	}
}

type checked struct {
	Entry
	hash string
}

// follows says whether text is the line after at.
func follows(at position, text []byte) (checked, error) {
	l, e, err := parse(text)
	switch {
	case err != nil:
		return checked{}, fmt.Errorf("cannot be read: %w", err)
	case l.Prev != at.hash:
		return checked{}, fmt.Errorf("does not follow the line before: it names %.12s…, the line before is %.12s…", l.Prev, at.hash)
	case l.Hash != chain(l.Prev, l.Entry):
		return checked{}, errors.New("was changed: its hash is not that of its content")
	case e.Seq != at.seq+1:
		return checked{}, fmt.Errorf("has number %d, expected %d", e.Seq, at.seq+1)
	}
	return checked{e, l.Hash}, nil
}
