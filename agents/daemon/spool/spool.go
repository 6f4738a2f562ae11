// Package spool keeps reports on disk until every controller has them. It is one log of records, cut into segment
// files, and per controller the set of records it still lacks. The newest records are handed out first: what is now
// matters more than what was. It is bounded: beyond the cap the oldest segment is dropped, and counted. Nothing in it
// knows what a record says. A torn tail after a power cut loses the torn records only; a lost cursor file means that
// records are sent again, which the receiver must bear. When the disk takes no writes, the newest records are kept in
// memory.
package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Options are the bounds. Zero values mean the defaults.
type Options struct {
	CapBytes     int64         // default 64 MiB
	SegmentBytes int64         // default 1 MiB
	SyncEvery    time.Duration // default 1 minute
}

// MaxRecordBytes bounds one record.
const MaxRecordBytes = 2 << 20

// memoryRecords is how many records are kept when the disk takes none.
const memoryRecords = 32

// Record is one payload and its place in the log.
type Record struct {
	Index    uint64
	Payload  []byte
	RawBytes int // the caller's measure of what the payload unpacks to
}

// entry says where a record lies. memory is set when it lies in no file.
type entry struct {
	index    uint64
	segment  *segment
	offset   int64
	size     int
	rawBytes int
	memory   []byte
}

// Spool is safe for concurrent use.
type Spool struct {
	dir string
	opt Options

	mu       sync.Mutex
	entries  []entry // by index
	segments []*segment
	next     uint64
	readers  map[string]*pending
	dropped  map[string]uint64
	synced   time.Time // of the log
	saved    time.Time // of the cursors
}

// Open reads what an earlier run left for the readers. Readers it does not know yet start with all that is there.
func Open(dir string, readers []string, opt Options) (*Spool, error) {
	opt.CapBytes = cmp.Or(opt.CapBytes, 64<<20)
	opt.SegmentBytes = cmp.Or(opt.SegmentBytes, 1<<20)
	opt.SyncEvery = cmp.Or(opt.SyncEvery, time.Minute)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{dir: dir, opt: opt, next: 1, readers: map[string]*pending{}, dropped: map[string]uint64{}}
	if err := s.scan(); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("spool: %w", err)
	}
	saved := loadCursors(s.cursorFile())
	for _, r := range readers {
		s.readers[r] = s.restore(saved, r)
	}
	return s, nil
}

func (s *Spool) cursorFile() string { return filepath.Join(s.dir, "cursors.json") }

// restore is the reader's saved set, cut to what is still there and grown by what was appended after it was saved.
func (s *Spool) restore(saved map[string]cursor, reader string) *pending {
	p := &pending{}
	c, ok := saved[reader]
	switch {
	case !ok || c.Next > s.next: // unknown, or from another log
		c = cursor{Next: s.first()}
	default:
		p.ranges = slices.Clone(c.Pending)
	}
	if c.Next < s.next {
		p.add(c.Next, s.next-1)
	}
	p.removeBelow(s.first())
	return p
}

// first is the oldest index that is there, or next.
func (s *Spool) first() uint64 {
	if len(s.entries) == 0 {
		return s.next
	}
	return s.entries[0].index
}

// Last is the newest record of this run or an earlier one.
func (s *Spool) Last() (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.entries) - 1; i >= 0; i-- {
		if r, err := s.load(s.entries[i]); err == nil {
			return r, true
		}
	}
	return Record{}, false
}

// Append adds a record for every reader. An error says that the disk did not take it; it is kept in memory then.
func (s *Spool) Append(payload []byte, rawBytes int) error {
	if len(payload) > MaxRecordBytes || rawBytes > MaxRecordBytes {
		return fmt.Errorf("spool: a record of %d bytes is larger than %d", max(len(payload), rawBytes), MaxRecordBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := entry{index: s.next, size: len(payload), rawBytes: rawBytes}
	s.next++
	err := s.write(&e, payload)
	if err != nil {
		e.memory, err = slices.Clone(payload), fmt.Errorf("spool: %w", err)
	}
	s.entries = append(s.entries, e)
	for _, p := range s.readers {
		p.add(e.index, e.index)
	}
	s.forgetMemory()
	s.shrink()
	return errors.Join(err, s.settle(false))
}

// forgetMemory keeps the newest records that no file holds.
func (s *Spool) forgetMemory() {
	inMemory := 0
	for i := len(s.entries) - 1; i >= 0; i-- {
		if s.entries[i].memory == nil {
			continue
		}
		if inMemory++; inMemory > memoryRecords {
			s.drop(i, i+1)
			return // it grows by one record at a time
		}
	}
}

// shrink drops the oldest segment while the log is larger than its cap.
func (s *Spool) shrink() {
	for s.sizeBytes() > s.opt.CapBytes && len(s.segments) > 1 {
		oldest := s.segments[0]
		end := slices.IndexFunc(s.entries, func(e entry) bool { return e.index >= s.segments[1].first })
		if end < 0 {
			end = len(s.entries)
		}
		s.drop(0, end)
		s.remove(oldest)
	}
}

// drop forgets entries[from:to] for good and counts what readers lose by it.
func (s *Spool) drop(from, to int) {
	for _, e := range s.entries[from:to] {
		for name, p := range s.readers {
			if p.remove(e.index, e.index) {
				s.dropped[name]++
			}
		}
	}
	s.entries = slices.Delete(s.entries, from, to)
}

func (s *Spool) sizeBytes() (sum int64) {
	for _, g := range s.segments {
		sum += g.size
	}
	return sum
}

// Take returns the newest records the reader lacks, oldest of them first, at most count of them and about rawBytes
// (one record is always returned if there is any).
func (s *Spool) Take(reader string, count, rawBytes int) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.readers[reader]
	if p == nil {
		return nil
	}
	var records []Record
	for index, ok := p.newest(); ok && len(records) < count; index, ok = p.before(index) {
		r, err := s.find(index)
		if err != nil { // unreadable or gone: nobody will ever get it
			p.remove(index, index)
			s.dropped[reader]++
			continue
		}
		rawBytes -= r.RawBytes
		if rawBytes < 0 && len(records) > 0 {
			break
		}
		records = append(records, r)
	}
	slices.Reverse(records)
	return records
}

// Done says that the reader has the records. What every reader has is removed.
func (s *Spool) Done(reader string, records []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.readers[reader]; p != nil {
		for _, r := range records {
			p.remove(r.Index, r.Index)
		}
	}
	s.reclaim()
	return s.settle(false)
}

// Pending is how many records the reader lacks, and Dropped how many it will never get.
func (s *Spool) Pending(reader string) (pending, dropped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.readers[reader]; p != nil {
		return p.count(), s.dropped[reader]
	}
	return 0, 0
}

// reclaim removes what no reader lacks: files from the oldest on, but never the newest, which tells the next run where
// this one ended.
func (s *Spool) reclaim() {
	oldest := s.next
	for _, p := range s.readers {
		if first, ok := p.oldest(); ok {
			oldest = min(oldest, first)
		}
	}
	for len(s.segments) > 1 && s.segments[1].first <= oldest {
		s.remove(s.segments[0])
	}
	keep := oldest
	if len(s.segments) > 0 {
		keep = min(keep, s.segments[0].first)
	}
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool {
		return e.index < keep || (e.memory != nil && e.index < oldest)
	})
}

// Close makes everything durable.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.settle(true)
	s.closeFiles()
	return err
}
