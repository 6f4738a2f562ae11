package runlock

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSecondIsRefusedAndToldByWhom(t *testing.T) {
	dir := t.TempDir()
	since := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	l, err := Acquire(dir, Holder{User: "alice", Host: "desk", PID: 42, Command: "fleet up fsn", Since: since})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(dir, Me("fleet down"))
	var held *ErrHeld
	if !errors.As(err, &held) || held.Holder.PID != 42 {
		t.Fatalf("got %v", err)
	}
	want := `locked by alice@desk, pid 42, "fleet up fsn", since 2026-11-22T20:00:00Z (wait for it to end; the lock ends with its process)`
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Acquire(dir, Me("fleet down"))
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
}

func TestOnlyOneOfManyGetsIt(t *testing.T) {
	dir := t.TempDir()
	locks := make([]*Lock, 20) // kept: a lock that is collected is closed
	var wg sync.WaitGroup
	for i := range locks {
		wg.Go(func() { locks[i], _ = Acquire(dir, Me("fleet up")) })
	}
	wg.Wait()
	held := 0
	for _, l := range locks {
		if l != nil {
			held++
			l.Release()
		}
	}
	if held != 1 {
		t.Errorf("%d runs hold the lock", held)
	}
}

const childDir = "RUNLOCK_TEST_CHILD"

// A killed holder's lock is free at once, although its name is still in the file.
func TestCrashFrees(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		hold(dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashFrees$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	if _, err := cmd.StdinPipe(); err != nil { // held open: the child lives as long as we do
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "held" {
		t.Fatalf("child said %q, %v", line, err)
	}
	var held *ErrHeld
	if _, err := Acquire(dir, Me("second")); !errors.As(err, &held) || held.Holder.PID != cmd.Process.Pid {
		t.Errorf("while the child lives: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	l, err := Acquire(dir, Me("second"))
	if err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func hold(dir string) {
	if _, err := Acquire(dir, Me("child")); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return
	}
	os.Stdout.WriteString("held\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until killed, or the parent is gone
}
