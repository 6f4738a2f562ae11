package spool

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A segment file is records one after the other:
//
//	offset  size  field (big endian)
//	0       4     payload size
//	4       4     what the payload unpacks to, in bytes
//	8       8     index
//	16      4     CRC-32C of the 16 bytes before and of the payload
//	20      …     payload
const headerBytes = 20

const suffix = ".spool"

// errTorn is a record that is not whole.
var errTorn = errors.New("torn record")

func checksum(header, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(header[:16], table), table, payload)
}

// encode is a record as it lies in a file.
func encode(e entry, payload []byte) []byte {
	b := make([]byte, headerBytes, headerBytes+len(payload))
	binary.BigEndian.PutUint32(b[0:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[4:], uint32(e.rawBytes))
	binary.BigEndian.PutUint64(b[8:], e.index)
	binary.BigEndian.PutUint32(b[16:], checksum(b, payload))
	return append(b, payload...)
}

// decode reads the record at the start of b.
func decode(b []byte) (e entry, payload []byte, err error) {
	if len(b) < headerBytes {
		return e, nil, errTorn
	}
	size := binary.BigEndian.Uint32(b)
	raw := binary.BigEndian.Uint32(b[4:])
	if size > MaxRecordBytes || raw > MaxRecordBytes || int(size) > len(b)-headerBytes {
		return e, nil, errTorn
	}
	payload = b[headerBytes : headerBytes+int(size)]
	if binary.BigEndian.Uint32(b[16:]) != checksum(b, payload) {
		return e, nil, errTorn
	}
	return entry{index: binary.BigEndian.Uint64(b[8:]), size: int(size), rawBytes: int(raw)}, payload, nil
}

// segment is one file of the log. The newest is written to.
type segment struct {
	file  *os.File
	first uint64 // index it was begun with
	size  int64
	// sealed: what lies behind its end could not be cut off, so nothing may be put there
	sealed bool
}

func (s *Spool) segmentPath(first uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%016x%s", first, suffix))
}

// scan reads all segments; a file ends for us at its first record that is not whole or out of order.
func (s *Spool) scan() error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+suffix))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		var first uint64
		if _, err := fmt.Sscanf(strings.TrimSuffix(filepath.Base(name), suffix), "%016x", &first); err != nil || first < s.next {
			continue // not ours
		}
		if err := s.scanFile(name, first); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spool) scanFile(name string, first uint64) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil { // a file system gone read-only is when reports matter most
		f, err = os.Open(name)
	}
	if err != nil {
		return err
	}
	g := &segment{file: f, first: first}
	s.segments, s.next = append(s.segments, g), first
	for int(g.size) < len(data) {
		e, payload, err := decode(data[g.size:])
		if err != nil || e.index < s.next {
			break
		}
		e.segment, e.offset = g, g.size
		s.entries = append(s.entries, e)
		s.next = e.index + 1
		g.size += headerBytes + int64(len(payload))
	}
	g.sealed = int(g.size) < len(data) && f.Truncate(g.size) != nil
	return nil
}

// write puts the record at the end of the newest segment, or of a new one. After a failure the file is cut back, so
// that no half record lies between whole ones.
func (s *Spool) write(e *entry, payload []byte) error {
	record := encode(*e, payload)
	if n := len(s.segments); n == 0 || s.segments[n-1].sealed || s.segments[n-1].size+int64(len(record)) > s.opt.SegmentBytes {
		if err := s.begin(e.index); err != nil {
			return err
		}
	}
	g := s.segments[len(s.segments)-1]
	if _, err := g.file.WriteAt(record, g.size); err != nil {
		cut := g.file.Truncate(g.size)
		g.sealed = cut != nil
		return errors.Join(err, cut)
	}
	e.segment, e.offset = g, g.size
	g.size += int64(len(record))
	return nil
}

func (s *Spool) begin(first uint64) error {
	f, err := os.OpenFile(s.segmentPath(first), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	s.segments = append(s.segments, &segment{file: f, first: first})
	s.reclaim()
	return nil
}

func (s *Spool) remove(g *segment) {
	g.file.Close()
	os.Remove(g.file.Name()) // left behind, it is read and dropped by the next run
	s.segments = slices.DeleteFunc(s.segments, func(o *segment) bool { return o == g })
}

func (s *Spool) find(index uint64) (Record, error) {
	i, ok := slices.BinarySearchFunc(s.entries, index, func(e entry, index uint64) int {
		switch {
		case e.index < index:
			return -1
		case e.index > index:
			return 1
		}
		return 0
	})
	if !ok {
		return Record{}, fmt.Errorf("record %d is gone", index)
	}
	return s.load(s.entries[i])
}

func (s *Spool) load(e entry) (Record, error) {
	if e.memory != nil {
		return Record{e.index, e.memory, e.rawBytes}, nil
	}
	b := make([]byte, headerBytes+e.size)
	if _, err := e.segment.file.ReadAt(b, e.offset); err != nil && !errors.Is(err, io.EOF) {
		return Record{}, err
	}
	_, payload, err := decode(b)
	return Record{e.index, payload, e.rawBytes}, err
}

func (s *Spool) closeFiles() {
	for _, g := range s.segments {
		g.file.Close()
	}
}

// cursor is a reader's set as saved: what it lacks below Next; all from Next on was not sent when it was saved.
type cursor struct {
	Next    uint64  `json:"next"`
	Pending []Range `json:"pending"`
}

// loadCursors returns what can be trusted of the file; without it everything is sent again.
func loadCursors(path string) map[string]cursor {
	var all map[string]cursor
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &all) != nil {
		return nil
	}
	for name, c := range all {
		if !valid(c.Pending, c.Next) {
			delete(all, name)
		}
	}
	return all
}

// settle syncs and saves when it is time: each write to flash that nobody needs wears it, and what a crash can lose in
// between is a minute of reports of a machine that just crashed.
func (s *Spool) settle(now bool) error {
	var err error
	if now || time.Since(s.saved) >= s.opt.SyncEvery {
		s.saved = time.Now()
		err = s.saveCursors()
	}
	if n := len(s.segments); n > 0 && (now || time.Since(s.synced) >= s.opt.SyncEvery) && s.behind() {
		s.synced = time.Now()
		err = errors.Join(err, s.segments[n-1].file.Sync())
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// behind tells whether a reader lacks more than what is on its way.
func (s *Spool) behind() bool {
	for _, p := range s.readers {
		if p.count() > 1 {
			return true
		}
	}
	return false
}

func (s *Spool) saveCursors() error {
	all := map[string]cursor{}
	for name, p := range s.readers {
		all[name] = cursor{s.next, p.ranges}
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	tmp := s.cursorFile() + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.cursorFile())
}
