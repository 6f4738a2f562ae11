package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func newJournal(t *testing.T) (*Journal, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a ?#%20folder", "journal.db") // every character that means something in a URI
	return reopen(t, path), path
}

func reopen(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func begin(t *testing.T, j *Journal, s Step) int64 {
	t.Helper()
	id, err := j.Begin(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func end(t *testing.T, j *Journal, id int64, o Outcome) {
	t.Helper()
	if err := j.End(t.Context(), id, o); err != nil {
		t.Fatal(err)
	}
}

func TestStep(t *testing.T) {
	j, path := newJournal(t)
	began := time.Date(2026, 11, 22, 20, 0, 0, 123456000, time.UTC)
	j.now = func() time.Time { return began }
	id := begin(t, j, Step{Run: "r1", Node: "fsn-1", Op: "install", Deadline: began.Add(time.Hour), Intent: map[string]int{"disks": 2}})
	j.now = func() time.Time { return began.Add(time.Minute) }
	end(t, j, id, Outcome{Status: Done, Evidence: []string{"S1", "S2"}})

	got, ok, err := reopen(t, path).Last(t.Context(), "fsn-1", "install")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if got.ID != id || got.Run != "r1" || got.Attempt != 1 || got.Status != Done || !got.Began.Equal(began) ||
		!got.Ended.Equal(began.Add(time.Minute)) || !got.Deadline.Equal(began.Add(time.Hour)) ||
		string(got.Intent) != `{"disks":2}` || string(got.Evidence) != `["S1","S2"]` {
		t.Errorf("got %+v", got)
	}
	if _, ok, err := j.Last(t.Context(), "fsn-1", "wipe"); ok || err != nil {
		t.Errorf("a step that never was: %v, %v", ok, err)
	}
}

func TestAttemptsAreCounted(t *testing.T) {
	j, _ := newJournal(t)
	for want := 1; want <= 3; want++ {
		end(t, j, begin(t, j, Step{Run: "r1", Node: "fsn-1", Op: "reset"}), Outcome{Status: Failed, Err: "no answer"})
		if e, _, err := j.Last(t.Context(), "fsn-1", "reset"); err != nil || e.Attempt != want || e.Err != "no answer" {
			t.Errorf("attempt %d: %+v, %v", want, e, err)
		}
	}
}

func TestEndOnce(t *testing.T) {
	j, _ := newJournal(t)
	id := begin(t, j, Step{Run: "r1", Op: "stack"})
	end(t, j, id, Outcome{Status: Done})
	if err := j.End(t.Context(), id, Outcome{Status: Failed}); !errors.Is(err, ErrEnded) {
		t.Errorf("second end: %v", err)
	}
	if err := j.End(t.Context(), 999, Outcome{Status: Done}); !errors.Is(err, ErrEnded) {
		t.Errorf("end of nothing: %v", err)
	}
	if err := j.End(t.Context(), id, Outcome{Status: Doing}); err == nil {
		t.Error("a step ended as doing")
	}
}

func TestEndIsRecordedWhenTheRunIsStopped(t *testing.T) {
	j, _ := newJournal(t)
	id := begin(t, j, Step{Run: "r1", Op: "stack"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.End(ctx, id, Outcome{Status: Interrupted}); err != nil {
		t.Error(err)
	}
}

func TestInterruptEndsOtherRunsSteps(t *testing.T) {
	j, _ := newJournal(t)
	dead := begin(t, j, Step{Run: "r1", Node: "fsn-1", Op: "install"})
	mine := begin(t, j, Step{Run: "r2", Node: "fsn-1", Op: "install"})
	if n, err := j.Interrupt(t.Context(), "r2"); n != 1 || err != nil {
		t.Fatalf("%d steps, %v", n, err)
	}
	open, err := j.Entries(t.Context(), Filter{Status: Doing})
	if err != nil || len(open) != 1 || open[0].ID != mine {
		t.Errorf("open: %+v, %v", open, err)
	}
	list, err := j.Entries(t.Context(), Filter{Status: Interrupted})
	if err != nil || len(list) != 1 || list[0].ID != dead || list[0].Ended.IsZero() {
		t.Errorf("interrupted: %+v, %v", list, err)
	}
}

func TestEntriesFilter(t *testing.T) {
	j, _ := newJournal(t)
	start := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	for i, node := range []string{"fsn-1", "fsn-2", "fsn-1"} {
		j.now = func() time.Time { return start.Add(time.Duration(i) * time.Minute) }
		begin(t, j, Step{Run: "r1", Node: node, Op: "facts"})
	}
	for _, c := range []struct {
		name string
		f    Filter
		want []int64
	}{
		{"all", Filter{}, []int64{1, 2, 3}},
		{"node", Filter{Node: "fsn-1"}, []int64{1, 3}},
		{"newest", Filter{Limit: 2}, []int64{2, 3}},
		{"since", Filter{Since: start.Add(time.Minute)}, []int64{2, 3}},
		{"other run", Filter{Run: "r2"}, nil},
		{"both", Filter{Node: "fsn-1", Op: "facts", Since: start.Add(time.Second)}, []int64{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := j.Entries(t.Context(), c.f)
			if err != nil || len(list) != len(c.want) {
				t.Fatalf("got %+v, %v", list, err)
			}
			for i, e := range list {
				if e.ID != c.want[i] {
					t.Errorf("entry %d is %d, want %d", i, e.ID, c.want[i])
				}
			}
		})
	}
}

func TestObservations(t *testing.T) {
	j, _ := newJournal(t)
	for _, stage := range []string{"rented", "rescue"} {
		if err := j.Observe(t.Context(), "r1", "fsn-1", stage, map[string]string{"host_key": "tofu"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Observe(t.Context(), "r1", "fsn-2", "absent", nil); err != nil {
		t.Fatal(err)
	}
	list, err := j.Observations(t.Context(), "fsn-1", 0)
	if err != nil || len(list) != 2 || list[1].Stage != "rescue" || string(list[1].Evidence) != `{"host_key":"tofu"}` {
		t.Errorf("got %+v, %v", list, err)
	}
	all, err := j.Observations(t.Context(), "", 1)
	if err != nil || len(all) != 1 || all[0].Node != "fsn-2" || all[0].Evidence != nil {
		t.Errorf("newest: %+v, %v", all, err)
	}
}

func TestAudit(t *testing.T) {
	j, _ := newJournal(t)
	id, err := j.Audit(t.Context(), Call{Who: "alice@desk", PID: 42, Verb: "up", Command: "fleet up fsn"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := j.Calls(t.Context(), 0)
	if err != nil || len(list) != 1 || !list[0].Ended.IsZero() {
		t.Fatalf("got %+v, %v", list, err)
	}
	if err := j.AuditEnd(t.Context(), id, 3); err != nil {
		t.Fatal(err)
	}
	if err := j.AuditEnd(t.Context(), id, 0); !errors.Is(err, ErrEnded) {
		t.Errorf("second end: %v", err)
	}
	list, err = j.Calls(t.Context(), 0)
	if err != nil || list[0].Exit != 3 || list[0].Ended.IsZero() || list[0].Who != "alice@desk" {
		t.Errorf("got %+v, %v", list, err)
	}
}

// The database itself refuses, whatever program opens it.
func TestHistoryCannotBeChanged(t *testing.T) {
	j, _ := newJournal(t)
	end(t, j, begin(t, j, Step{Run: "r1", Node: "fsn-1", Op: "wipe"}), Outcome{Status: Done})
	begin(t, j, Step{Run: "r1", Node: "fsn-1", Op: "open"})
	if err := j.Observe(t.Context(), "r1", "fsn-1", "rescue", nil); err != nil {
		t.Fatal(err)
	}
	id, err := j.Audit(t.Context(), Call{Who: "alice@desk", Verb: "up"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.AuditEnd(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		`UPDATE steps SET evidence = 'x' WHERE op = 'wipe'`,
		`UPDATE steps SET status = 'doing', ended = NULL WHERE op = 'wipe'`,
		`UPDATE steps SET intent = 'x', status = 'done', ended = 1 WHERE op = 'open'`,
		`UPDATE steps SET error = 'x' WHERE op = 'open'`,
		`DELETE FROM steps`,
		`UPDATE observations SET stage = 'x'`,
		`DELETE FROM observations`,
		`UPDATE audit SET exit = 1`,
		`UPDATE audit SET who = 'mallory@desk'`,
		`DELETE FROM audit`,
	} {
		if _, err := j.db.Exec(q); err == nil || !strings.Contains(err.Error(), "journal: ") {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func TestLargeEvidenceIsOmitted(t *testing.T) {
	j, _ := newJournal(t)
	id := begin(t, j, Step{Run: "r1", Op: "facts"})
	end(t, j, id, Outcome{Status: Done, Evidence: strings.Repeat("x", maxValueBytes)})
	e, _, err := j.Last(t.Context(), "", "facts")
	if err != nil || string(e.Evidence) != `{"omitted_bytes":1048578}` {
		t.Errorf("%.60s, %v", e.Evidence, err)
	}
}

// A run killed with its journal open: what Begin returned for is there, without any Close.
func TestKilledRunKeepsItsIntents(t *testing.T) {
	j, path := newJournal(t)
	begin(t, j, Step{Run: "r1", Node: "fsn-1", Op: "wipe"})
	copied := filepath.Join(t.TempDir(), "journal.db")
	for _, suffix := range []string{"", "-wal"} { // -shm is rebuilt
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, ok, err := reopen(t, copied).Last(t.Context(), "fsn-1", "wipe")
	if err != nil || !ok || e.Status != Doing {
		t.Errorf("got %+v, %v, %v", e, ok, err)
	}
}

// Two open journals stand for two processes: a run and somebody who reads or another fleet verb.
func TestManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { // opened at once, so the schema is made under contention
			j, err := Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer j.Close()
			writeMany(t, j)
		})
	}
	wg.Wait()
	list, err := reopen(t, path).Entries(t.Context(), Filter{Status: Done})
	if err != nil || len(list) != 2*8*5 {
		t.Errorf("%d steps are done, %v", len(list), err)
	}
}

func writeMany(t *testing.T, j *Journal) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				id, err := j.Begin(t.Context(), Step{Run: "r", Node: "n", Op: "o"})
				if err == nil {
					err = j.End(t.Context(), id, Outcome{Status: Done})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenRefuses(t *testing.T) {
	damaged := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(damaged, []byte(strings.Repeat("not a database ", 400)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(damaged); err == nil || !strings.Contains(err.Error(), "moved away") {
		t.Errorf("damaged: %v", err)
	}
	j, path := newJournal(t)
	if _, err := j.db.Exec(`PRAGMA user_version = 99`); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "later fleet") {
		t.Errorf("later schema: %v", err)
	}
}

func BenchmarkStep(b *testing.B) {
	j, err := Open(filepath.Join(b.TempDir(), "journal.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for b.Loop() {
		id, err := j.Begin(b.Context(), Step{Run: "r", Node: "fsn-1", Op: "facts", Intent: map[string]string{"why": "bench"}})
		if err == nil {
			err = j.End(b.Context(), id, Outcome{Status: Done, Evidence: []int{1, 2, 3}})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// Changing to WAL and making the schema are each done by one, while the others wait.
func TestOpenedByManyAtOnce(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "journal.db")
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				j, err := Open(path)
				if err != nil {
					t.Error(err)
					return
				}
				j.Close()
			})
		}
		wg.Wait()
	}
}
