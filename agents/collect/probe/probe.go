// Package probe keeps the reading of disks in a process of its own: `fleet-agent probe --serve`, a child of the agent.
// A disk that hangs, a library that goes astray, end the child and not the agent. Parent and child speak lines of JSON
// over pipes: one empty line asks, one Answer comes back. The child ends when its input does.
package probe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"popfleet/agents/collect/smart"
)

// Answer is what the child says of all disks.
type Answer struct {
	Readings []smart.Reading `json:"readings"`
	Error    string          `json:"error,omitempty"`
}

// maxAnswerBytes bounds a line: some hundred disks with all their attributes.
const maxAnswerBytes = 4 << 20

// Serve answers each line on in with all readings on out until in ends.
func Serve(in io.Reader, out io.Writer, read func() ([]smart.Reading, error)) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		readings, err := read()
		a := Answer{Readings: readings}
		if err != nil {
			a.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return fmt.Errorf("answer the agent: %w", err)
		}
	}
	return lines.Err()
}

// Client starts the child when it is first needed and again after it ended or was ended. It implements [smart.Source];
// Close ends the child.
type Client struct {
	Argv   []string  // the child: this binary, probe, --serve
	Stderr io.Writer // what the child says when it goes astray; nil: nowhere

	mu    sync.Mutex
	child *child
}

// child is a running reader.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan []byte // closed when the child's output ends
}

// Readings asks the child. When ctx ends first the child is killed: whatever it hangs on, the next question gets a new
// one. A child that cannot be killed, stuck in the kernel, is left behind and reported by the error.
func (c *Client) Readings(ctx context.Context) ([]smart.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.child == nil {
		started, err := start(c.Argv, c.Stderr)
		if err != nil {
			return nil, fmt.Errorf("start the disk probe: %w", err)
		}
		c.child = started
	}
	a, err := c.child.ask(ctx)
	if err != nil {
		err = errors.Join(err, c.child.end())
		c.child = nil
		return nil, err
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return a.Readings, nil
}

// Close ends the child.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.child == nil {
		return nil
	}
	err := c.child.end()
	c.child = nil
	return err
}

func start(argv []string, stderr io.Writer) (*child, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.WaitDelay, cmd.Stderr = time.Second, stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	k := &child{cmd: cmd, in: in, lines: make(chan []byte, 1)}
	go k.listen(out)
	return k, nil
}

func (k *child) listen(out io.Reader) {
	defer close(k.lines)
	s := bufio.NewScanner(out)
	s.Buffer(nil, maxAnswerBytes)
	for s.Scan() {
		k.lines <- bytes.Clone(s.Bytes())
	}
}

func (k *child) ask(ctx context.Context) (Answer, error) {
	var a Answer
	if _, err := io.WriteString(k.in, "\n"); err != nil {
		return a, fmt.Errorf("ask the disk probe: %w", err)
	}
	select {
	case <-ctx.Done():
		return a, fmt.Errorf("a disk does not answer: %w", context.Cause(ctx))
	case line, ok := <-k.lines:
		if !ok {
			return a, errors.New("the disk probe ended")
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return a, fmt.Errorf("the disk probe's answer: %w", err)
		}
		return a, nil
	}
}

// killWait is how long a killed child may take to go; one in uninterruptible sleep takes as long as its disk.
const killWait = 2 * time.Second

func (k *child) end() error {
	k.in.Close()
	_ = k.cmd.Process.Kill() // it may have ended by itself
	gone := make(chan struct{})
	go func() {
		for range k.lines {
		}
		_ = k.cmd.Wait() // killed: its status says nothing
		close(gone)
	}()
	t := time.NewTimer(killWait)
	defer t.Stop()
	select {
	case <-gone:
		return nil
	case <-t.C:
		return fmt.Errorf("the disk probe (pid %d) hangs in the kernel", k.cmd.Process.Pid)
	}
}
