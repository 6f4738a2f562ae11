package command

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// Two writers, one of them os/exec's own copying: what is kept stays bounded, whichever way the bytes come.
func TestOutputIsBoundedHoweverItComes(t *testing.T) {
	var b bounded
	if _, ok := any(&b).(io.ReaderFrom); ok {
		t.Error("io.Copy would read past the bound")
	}
	flood := strings.Repeat("x", maxOutput)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if n, err := io.Copy(&b, strings.NewReader(flood)); int(n) != len(flood) || err != nil {
				t.Errorf("%d bytes, %v: a program would see a broken pipe", n, err)
			}
		})
	}
	both.Wait()
	if n := len(b.Bytes()); n != maxOutput {
		t.Errorf("%d bytes kept of %d", n, 2*maxOutput)
	}
}

// A program that fails is told by the last lines of both its outputs.
func TestFailureTellsBothOutputs(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no sh on this machine")
	}
	out, err := System{}.Run(t.Context(), Cmd{Argv: []string{"sh", "-c", "echo said; echo complained >&2; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "said") || !strings.Contains(err.Error(), "complained") || !bytes.Equal(out, []byte("said\n")) {
		t.Errorf("%q, %v", out, err)
	}
}
