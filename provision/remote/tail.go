package remote

import (
	"bytes"
	"strings"
	"sync"
)

const (
	tailLines     = 20
	tailLineBytes = 500
)

// tail keeps the last lines written to it, bounded in number and length.
type tail struct {
	mu      sync.Mutex
	kept    []string
	partial []byte
}

func newTail() *tail { return &tail{} }

// Write takes any bytes and cuts them into lines.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		t.partial = append(t.partial, p[:i]...)
		t.push(string(t.partial))
		t.partial, p = t.partial[:0], p[i+1:]
	}
	if room := tailLineBytes - len(t.partial); room > 0 {
		t.partial = append(t.partial, p[:min(room, len(p))]...)
	}
	return n, nil
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push(line)
}

// push runs with mu held.
func (t *tail) push(line string) {
	if line = strings.TrimSpace(line); line == "" {
		return
	}
	if len(line) > tailLineBytes {
		line = line[:tailLineBytes] + "…"
	}
	t.kept = append(t.kept, line)
	if len(t.kept) > tailLines {
		t.kept = t.kept[len(t.kept)-tailLines:]
	}
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := append([]string(nil), t.kept...)
	if rest := strings.TrimSpace(string(t.partial)); rest != "" {
		out = append(out, rest)
	}
	return out
}
