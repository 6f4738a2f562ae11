package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newLog(t testing.TB, entries int) Log {
	t.Helper()
	l := Log{filepath.Join(t.TempDir(), "audit.jsonl")}
	for i := range entries {
		if err := l.Append(Entry{Who: "ada", Node: fmt.Sprintf("fsn-%d", i), Verdict: "allow", Why: "<because & so>", Evidence: []byte(`{"a": 1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func all(l Log) (nodes []string, head string, err error) {
	head, err = l.Read(func(e Entry) error { nodes = append(nodes, e.Node); return nil })
	return nodes, head, err
}

func TestAppendAndRead(t *testing.T) {
	if nodes, head, err := all(newLog(t, 0)); err != nil || len(nodes) != 0 || head != genesis {
		t.Errorf("no file: %v %s %v", nodes, head, err)
	}
	l := newLog(t, 3)
	nodes, head, err := all(l)
	if err != nil || strings.Join(nodes, " ") != "fsn-0 fsn-1 fsn-2" {
		t.Fatalf("%v, %v", nodes, err)
	}
	text, _ := os.ReadFile(l.Path)
	if !strings.Contains(string(text), head) || strings.Count(string(text), "\n") != 3 {
		t.Errorf("head %s of\n%s", head, text)
	}
	if st, _ := os.Stat(l.Path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestEveryChangeIsSeen(t *testing.T) {
	l := newLog(t, 4)
	whole, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for name, bad := range map[string][]byte{
		"a word changed":     bytes.Replace(whole, []byte("fsn-1"), []byte("fsn-9"), 1),
		"a line taken out":   join(lines[0], lines[2], lines[3]),
		"the first one too":  join(lines[1:]...),
		"two lines swapped":  join(lines[0], lines[2], lines[1], lines[3]),
		"a line twice":       join(lines[0], lines[0], lines[1]),
		"white space":        bytes.Replace(whole, []byte(`"a":1`), []byte(`"a": 1`), 1),
		"something else":     join(lines[0], []byte("hello\n"), lines[1]),
		"a line too long":    join(lines[0], bytes.Repeat([]byte("x"), maxLineBytes+1), []byte("\n")),
		"a hash of our own":  bytes.Replace(whole, lines[1][:80], bytes.Replace(lines[1][:80], []byte(`"prev":"`), []byte(`"prev":"0`), 1), 1),
		"an empty line more": join(lines[0], []byte("\n"), lines[1]),
	} {
		if bytes.Equal(bad, whole) {
			t.Fatalf("%s: nothing was changed", name)
		}
		_, err := read(bytes.NewReader(bad), func(Entry) error { return nil })
		if !errors.As(err, new(*BrokenError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestACrashLosesNothingThatWasAcknowledged cuts the file at every byte of its last line and appends.
func TestACrashLosesNothingThatWasAcknowledged(t *testing.T) {
	whole, err := os.ReadFile(newLog(t, 2).Path)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := first; cut < len(whole); cut += 7 {
		l := Log{filepath.Join(t.TempDir(), "a")}
		if err := os.WriteFile(l.Path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if nodes, _, err := all(l); err != nil || len(nodes) != 1 {
			t.Fatalf("cut at %d: %v, %v", cut, nodes, err)
		}
		if err := l.Append(Entry{Node: "fsn-7"}); err != nil {
			t.Fatal(err)
		}
		if nodes, _, err := all(l); err != nil || strings.Join(nodes, " ") != "fsn-0 fsn-7" {
			t.Fatalf("cut at %d, then appended: %v, %v", cut, nodes, err)
		}
	}
}

func TestManyWriters(t *testing.T) {
	l := newLog(t, 0)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 25 {
				if err := l.Append(Entry{Node: "x"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	if nodes, _, err := all(l); err != nil || len(nodes) != 200 {
		t.Errorf("%d of 200, %v", len(nodes), err)
	}
}

func TestAppendRefuses(t *testing.T) {
	l := newLog(t, 1)
	if err := l.Append(Entry{Why: strings.Repeat("x", maxLineBytes)}); err == nil {
		t.Error("an entry larger than a line may be was taken")
	}
	if err := os.WriteFile(l.Path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(Entry{}); err == nil || !strings.Contains(err.Error(), "move the file away") {
		t.Errorf("appended to a strange file: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	whole, err := os.ReadFile(newLog(f, 3).Path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		_, err := read(bytes.NewReader(data), func(Entry) error { n++; return nil })
		if err == nil && n != bytes.Count(data, []byte("\n")) {
			t.Errorf("%d entries of %d lines", n, bytes.Count(data, []byte("\n")))
		}
	})
}
