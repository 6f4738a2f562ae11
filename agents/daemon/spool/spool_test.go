package spool

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func open(t testing.TB, dir string, opt Options, readers ...string) *Spool {
	t.Helper()
	s, err := Open(dir, readers, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := s.Append(fmt.Appendf(nil, "report %d", i), 100); err != nil {
			t.Fatal(err)
		}
	}
}

func indices(records []Record) (out []uint64) {
	for _, r := range records {
		out = append(out, r.Index)
	}
	return out
}

func TestNewestFirstAndEachReaderOnItsOwn(t *testing.T) {
	s := open(t, t.TempDir(), Options{}, "a", "b")
	defer s.Close()
	put(t, s, 1, 10)
	got := s.Take("a", 3, 1<<20)
	if !slices.Equal(indices(got), []uint64{8, 9, 10}) || string(got[0].Payload) != "report 8" || got[0].RawBytes != 100 {
		t.Fatalf("%+v", got)
	}
	s.Done("a", got)
	put(t, s, 11, 11)
	if got := s.Take("a", 3, 1<<20); !slices.Equal(indices(got), []uint64{6, 7, 11}) {
		t.Errorf("a: %v", indices(got))
	}
	if got := s.Take("b", 2, 1<<20); !slices.Equal(indices(got), []uint64{10, 11}) {
		t.Errorf("b: %v", indices(got))
	}
	if got := s.Take("b", 9, 250); !slices.Equal(indices(got), []uint64{10, 11}) {
		t.Errorf("bounded by size: %v", indices(got))
	}
	if got := s.Take("b", 9, 1); !slices.Equal(indices(got), []uint64{11}) {
		t.Errorf("one at least: %v", indices(got))
	}
	if n, _ := s.Pending("a"); n != 8 {
		t.Errorf("a lacks %d", n)
	}
	if got := s.Take("nobody", 9, 1000); got != nil {
		t.Errorf("nobody: %v", got)
	}
}

func TestAnotherRunGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{}, "a", "b")
	put(t, s, 1, 5)
	s.Done("a", s.Take("a", 2, 1000))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{}, "a", "new")
	defer s.Close()
	if last, ok := s.Last(); !ok || string(last.Payload) != "report 5" {
		t.Errorf("last %+v %v", last, ok)
	}
	put(t, s, 6, 6)
	if got := indices(s.Take("a", 9, 10000)); !slices.Equal(got, []uint64{1, 2, 3, 6}) {
		t.Errorf("a: %v", got)
	}
	if got := indices(s.Take("new", 9, 10000)); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
		t.Errorf("new: %v", got)
	}
}

// A crash may lose the cursors of the last minute; what was delivered since is delivered again, nothing is skipped.
func TestOldCursorsSendAgainAndSkipNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{}, "a")
	put(t, s, 1, 3)
	s.Close()
	s = open(t, dir, Options{}, "a")
	s.Done("a", s.Take("a", 9, 1000)) // saved at once, as the first change
	put(t, s, 4, 6)
	s.Done("a", s.Take("a", 9, 1000)) // not saved
	s.closeFiles()                    // the crash
	s = open(t, dir, Options{}, "a")
	defer s.Close()
	if got := indices(s.Take("a", 9, 1000)); !slices.Equal(got, []uint64{4, 5, 6}) {
		t.Errorf("%v", got)
	}
}

func TestTheCapDropsTheOldestAndCountsIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{CapBytes: 2000, SegmentBytes: 500}, "away", "here")
	defer s.Close()
	for i := 1; i <= 200; i++ {
		put(t, s, i, i)
		s.Done("here", s.Take("here", 9, 1000))
	}
	size := int64(0)
	files, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	waiting, dropped := s.Pending("away")
	if size > 2000 || waiting == 0 || waiting+dropped != 200 || len(s.entries) > int(waiting)+1 {
		t.Errorf("%d bytes in %d files, %d waiting, %d dropped, %d known", size, len(files), waiting, dropped, len(s.entries))
	}
	if _, lost := s.Pending("here"); lost != 0 {
		t.Errorf("the reader that was here lost %d", lost)
	}
	newest := s.Take("away", 1, 1000)
	if string(newest[0].Payload) != "report 200" {
		t.Errorf("newest %q", newest[0].Payload)
	}
}

func TestDeliveredSegmentsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{SegmentBytes: 200}, "a")
	defer s.Close()
	put(t, s, 1, 50)
	for got := s.Take("a", 10, 1<<20); len(got) > 0; got = s.Take("a", 10, 1<<20) {
		s.Done("a", got)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if _, ok := s.Last(); len(files) != 1 || !ok {
		t.Errorf("%d files left", len(files))
	}
}

func TestATornTailLosesOnlyItself(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{}, "a")
	put(t, s, 1, 4)
	s.Close()
	name := s.segmentPath(1)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(data) {
		if err := os.WriteFile(name, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, Options{}, "a")
		whole := cut / (headerBytes + len("report 1"))
		put(t, s, 99, 99)
		got := s.Take("a", 9, 1<<20)
		if len(got) != whole+1 || string(got[whole].Payload) != "report 99" {
			t.Fatalf("cut at %d: %d records, want %d", cut, len(got), whole+1)
		}
		s.closeFiles()
	}
}

func TestWithoutADiskTheNewestAreKeptInMemory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{}, "a")
	put(t, s, 1, 2)
	s.segments[0].file.Close() // from now on the disk takes nothing,
	os.RemoveAll(dir)          // a new file neither
	for i := 3; i <= 3+memoryRecords; i++ {
		if err := s.Append(fmt.Appendf(nil, "report %d", i), 100); err == nil {
			t.Fatal("no error though nothing was written")
		}
	}
	got := s.Take("a", 100, 1<<20)
	if len(got) != memoryRecords || string(got[len(got)-1].Payload) != fmt.Sprintf("report %d", 3+memoryRecords) {
		t.Errorf("%d records, %v", len(got), indices(got))
	}
	s.Done("a", got)
	if n, dropped := s.Pending("a"); n != 0 || dropped != 3 { // 1 and 2 cannot be read, 3 had to go
		t.Errorf("%d waiting, %d dropped", n, dropped)
	}
}

func TestTooLargeARecord(t *testing.T) {
	s := open(t, t.TempDir(), Options{}, "a")
	defer s.Close()
	if err := s.Append(make([]byte, MaxRecordBytes+1), 1); err == nil {
		t.Error("taken")
	}
	if got := s.Take("a", 1, 1); got != nil {
		t.Errorf("%v", got)
	}
}

// The pending set against a plain set of numbers.
func TestPendingModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, model, next := &pending{}, map[uint64]bool{}, uint64(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "add") {
				last := next + rapid.Uint64Range(0, 5).Draw(t, "more")
				p.add(next, last)
				for ; next <= last; next++ {
					model[next] = true
				}
				next += rapid.Uint64Range(0, 2).Draw(t, "gap")
				continue
			}
			first := rapid.Uint64Range(0, next+2).Draw(t, "first")
			last := first + rapid.Uint64Range(0, 10).Draw(t, "length")
			hit := false
			for i := first; i <= last; i++ {
				hit = hit || model[i]
				delete(model, i)
			}
			if p.remove(first, last) != hit {
				t.Fatalf("remove %d-%d said %v", first, last, !hit)
			}
		}
		compare(t, p, model)
		if !valid(p.ranges, next) {
			t.Fatalf("ranges %v", p.ranges)
		}
	})
}

func compare(t *rapid.T, p *pending, model map[uint64]bool) {
	var got, want []uint64
	for i, ok := p.newest(); ok; i, ok = p.before(i) {
		got = append(got, i)
	}
	for i := range model {
		want = append(want, i)
	}
	slices.Sort(want)
	slices.Reverse(want)
	if !slices.Equal(got, want) || p.count() != uint64(len(want)) {
		t.Fatalf("%v, want %v", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(entry{index: 7, rawBytes: 3}, []byte("abc")))
	f.Add(encode(entry{index: 7}, nil))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, payload, err := decode(data)
		if err != nil {
			return
		}
		if again := encode(e, payload); !bytes.Equal(again, data[:len(again)]) {
			t.Errorf("%x decodes to what encodes as %x", data, again)
		}
	})
}
