// Package command is how fleet-agent runs other programs: one argument vector, never a shell; secrets only through
// inherited pipes, never in the arguments, the environment or a file. It knows no program. A failure carries the last
// lines the program printed.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Cmd is one program to run.
type Cmd struct {
	Argv  []string
	Stdin []byte
	// Secrets are given as pipes on descriptors 3, 4, …; name them in Argv with [Secret].
	Secrets [][]byte
	Timeout time.Duration // 0: 5 minutes
	Env     []string      // added to a minimal environment
}

// Secret is the path under which the program finds Cmd.Secrets[i].
func Secret(i int) string { return fmt.Sprintf("/dev/fd/%d", 3+i) }

// Runner runs a program to its end and returns what it printed on stdout. Callers may use it from several goroutines.
type Runner interface {
	Run(ctx context.Context, c Cmd) ([]byte, error)
}

// Error is a program that failed.
type Error struct {
	Argv []string
	Tail string // last lines of stdout and stderr
	Err  error
}

func (e *Error) Error() string {
	msg := fmt.Sprintf("%s: %v", strings.Join(e.Argv, " "), e.Err)
	if e.Tail != "" {
		msg += ": " + e.Tail
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the code a program ended with, or -1.
func ExitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// System runs programs of this machine.
type System struct{}

const (
	defaultTimeout = 5 * time.Minute
	maxOutput      = 4 << 20
)

// Run implements [Runner].
func (System) Run(ctx context.Context, c Cmd) ([]byte, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, c.Env...)
	cmd.WaitDelay = 5 * time.Second
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	var out, both bounded
	cmd.Stdout = io.MultiWriter(&out, &both)
	cmd.Stderr = &both
	closeAll, err := secretPipes(cmd, c.Secrets)
	defer closeAll()
	if err == nil {
		err = cmd.Run()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w after %s: %w", context.Cause(ctx), timeout, err)
		}
		return out.Bytes(), &Error{Argv: c.Argv, Tail: tail(both.Bytes()), Err: err}
	}
	return out.Bytes(), nil
}

// secretPipes fills one pipe per secret. A secret is far smaller than a pipe's buffer, so the write cannot block.
func secretPipes(cmd *exec.Cmd, secrets [][]byte) (closeAll func(), err error) {
	var files []*os.File
	closeAll = func() {
		for _, f := range files {
			f.Close()
		}
	}
	for _, s := range secrets {
		if len(s) > 4096 {
			return closeAll, errors.New("secret larger than a pipe takes at once")
		}
		r, w, err := os.Pipe()
		if err != nil {
			return closeAll, err
		}
		files = append(files, r)
		cmd.ExtraFiles = append(cmd.ExtraFiles, r)
		_, err = w.Write(s)
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return closeAll, err
		}
	}
	return closeAll, nil
}

// bounded keeps the first maxOutput bytes and swallows the rest, so a chatty program cannot fill the memory. A program's
// two outputs are copied side by side, so both may write to one. The buffer is not embedded: its ReadFrom would be found
// by io.Copy and go past the bound and the lock.
type bounded struct {
	mu   sync.Mutex
	kept []byte // guarded by mu
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if room := maxOutput - len(b.kept); room > 0 {
		b.kept = append(b.kept, p[:min(len(p), room)]...)
	}
	return len(p), nil
}

// Bytes is what was kept.
func (b *bounded) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept
}

// tail is the last lines of a program's output, on one line.
func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) > 6 {
		lines = lines[len(lines)-6:]
	}
	text := strings.Join(lines, " | ")
	if len(text) > 1000 {
		text = "…" + text[len(text)-1000:]
	}
	return text
}
