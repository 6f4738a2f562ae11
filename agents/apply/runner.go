package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is one program with its arguments; no shell is involved. Env is added to a minimal environment.
type Command struct {
	Args    []string // Args[0] is the program, found on the system's own path
	Env     []string
	Stdin   []byte
	Timeout time.Duration // 0: one minute
}

// Runner runs one program to its end and returns its standard output. An exit status other than 0 is an error that
// carries the end of what the program wrote to stderr. It may be called from one goroutine at a time.
type Runner interface {
	Run(ctx context.Context, c Command) ([]byte, error)
}

// Exec runs programs on this machine.
type Exec struct{}

const (
	searchPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxOutputBytes = 4 << 20
	tailLines      = 12
)

// Run implements [Runner].
func (Exec) Run(ctx context.Context, c Command) ([]byte, error) {
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	// env(1) looks the program up on searchPath: the agent's own environment, set by sshd, may lack sbin.
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--"}, c.Args...)...)
	cmd.Env = append([]string{"PATH=" + searchPath, "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}, c.Env...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr limited
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &stdout, &stderr
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("stopped after %v: %w", c.Timeout, context.Cause(ctx))
	}
	if err != nil {
		return stdout.Bytes(), commandError(c.Args, err, stderr.String())
	}
	return stdout.Bytes(), nil
}

// start gives the program the system's usual umask instead of the agent's narrow one: a package's scripts make files
// that others must read. The umask belongs to the process; apply does one thing at a time, so nothing else is made now.
func start(cmd *exec.Cmd) error {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	return cmd.Start()
}

func commandError(args []string, err error, stderr string) error {
	what := strings.Join(args[:min(len(args), 4)], " ")
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("exit status %d", exit.ExitCode())
	}
	if said := tail(stderr, tailLines); said != "" {
		return fmt.Errorf("%s: %w: %s", what, err, said)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// tail is the last n lines of s in one string.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// limited keeps the first maxOutputBytes written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutputBytes - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
