package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// What goes where: results (a plan, a status, JSON events) go to stdout, everything said to a person (progress,
// warnings, errors, hints) to stderr. With --json stdout holds events only, and people still read stderr.

// eventVersion grows when a field changes its meaning; new fields and new kinds do not count.
const eventVersion = 1

// event is one line of --json.
type event struct {
	V    int       `json:"v"`
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	Node string    `json:"node,omitempty"`
	Data any       `json:"data,omitempty"`
}

type printer struct {
	mu       sync.Mutex
	out, err io.Writer
	json     bool
	color    bool
}

func newPrinter(env Env, jsonEvents bool) *printer {
	color := env.Terminal && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"
	return &printer{out: env.Stdout, err: env.Stderr, json: jsonEvents, color: color}
}

// say tells a person something.
func (p *printer) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.err, format+"\n", args...)
}

// data prints a result for people when --json is off.
func (p *printer) data(format string, args ...any) {
	if p.json {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format, args...)
}

// event prints one line for machines when --json is on.
func (p *printer) event(kind, node string, data any) {
	if !p.json {
		return
	}
	line, err := json.Marshal(event{V: eventVersion, Time: time.Now().UTC(), Kind: kind, Node: node, Data: data})
	if err != nil {
		panic(fmt.Sprintf("cli: event %s cannot be written as JSON: %v", kind, err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(append(line, '\n'))
}

// finish says how the run ended and returns the exit code.
func (p *printer) finish(err error) int {
	code := codeOf(err)
	var quiet *exitError
	if err != nil {
		if e, ok := err.(*exitError); ok && e.err == nil {
			quiet = e
		}
		if quiet == nil {
			p.say("%s %v", p.paint(red, "error:"), err)
		}
	}
	result := map[string]any{"code": code}
	if err != nil && quiet == nil {
		result["error"] = err.Error()
	}
	p.event("exit", "", result)
	return code
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

func (p *printer) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
