package remote

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
)

func TestDamagedAgentIsNamed(t *testing.T) {
	a := agentFile(t)
	s, target, _ := setup(t)
	s.run = func(_ string, ch ssh.Channel) uint32 {
		fmt.Fprintln(ch, "NEED")
		var n int64
		_, _ = fmt.Fscanln(ch, &n)
		_, _ = io.CopyN(io.Discard, ch, n)
		fmt.Fprintln(ch, "BADDIGEST")
		return 90
	}
	c, err := Connect(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.Exchange(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Do(t.Context(), Call{Op: spec.OpFacts}); !errors.Is(err, ErrBadDigest) {
		t.Errorf("got %v", err)
	}
}

// A shell that says something else first (a message of the day, a missing /bin/sh) is quoted, shortened.
func TestStrangeShell(t *testing.T) {
	a := agentFile(t)
	s, target, _ := setup(t)
	s.run = func(_ string, ch ssh.Channel) uint32 {
		fmt.Fprintln(ch, "Welcome! "+strings.Repeat("x", 5000))
		return 1
	}
	c, err := Connect(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Exchange(t.Context(), a, nil)
	if err == nil || !strings.Contains(err.Error(), "Welcome!") || len(err.Error()) > 1000 {
		t.Errorf("got %v", err)
	}
}

func TestTailIsBounded(t *testing.T) {
	l := newTail()
	for i := range 100 {
		fmt.Fprintf(l, "line %d %s\n", i, strings.Repeat("y", 2000))
	}
	lines := l.lines()
	if len(lines) != tailLines || !strings.HasPrefix(lines[tailLines-1], "line 99 ") || len(lines[0]) > tailLineBytes+10 {
		t.Errorf("%d lines, last %.20q", len(lines), lines[len(lines)-1])
	}
}

// FuzzEvents reads whatever a machine may send: every line is an event or an error, and nothing is kept beyond bounds.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":1,"kind":"result","data":{"run":"x"}}` + "\n"))
	f.Add([]byte("HAVE\n{}\n\n"))
	f.Add([]byte("BADDIGEST\n"))
	f.Add(bytes.Repeat([]byte("a"), 70_000))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, _ := pipe(0)
		x := &Exchange{conn: &Conn{link: watch(near)}, out: bufio.NewReaderSize(bytes.NewReader(data), 16), stderr: newTail(), waiting: true}
		for range bytes.Count(data, []byte("\n")) + 1 {
			if _, err := x.next(); err != nil && len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
		}
	})
}
