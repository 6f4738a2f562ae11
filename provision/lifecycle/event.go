package lifecycle

import (
	"fmt"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// Kinds of Event.
const (
	EventStage    = "stage"    // a stage was observed
	EventBegin    = "begin"    // an operation began
	EventWait     = "wait"     // something is waited for
	EventProgress = "progress" // Done of Total
	EventLog      = "log"      // a line worth keeping
	EventWarning  = "warning"  // said aloud: first use of a host key, an escalation
	EventEnd      = "end"      // an operation ended
	EventDone     = "done"     // the node is where it should be
	EventFailed   = "failed"
)

// Event is one thing that happened to one node.
type Event struct {
	Time    time.Time `json:"time"`
	Node    string    `json:"node"`
	Kind    string    `json:"kind"`
	Stage   Stage     `json:"stage,omitempty"`
	Op      Op        `json:"op,omitempty"`
	Attempt int       `json:"attempt,omitempty"`
	Text    string    `json:"text,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of the wait, or of the operation
	Done    int64     `json:"done,omitempty"`
	Total   int64     `json:"total,omitempty"`
}

// Fraction is Done of Total, or −1 when unknown.
func (e Event) Fraction() float64 {
	if e.Total <= 0 {
		return -1
	}
	return float64(e.Done) / float64(e.Total)
}

// Result is how one node's run ended.
type Result struct {
	Node    string
	Stage   Stage
	Server  provider.Server
	Changed bool // any operation acted
	Took    time.Duration
	Err     error // *Error, or nil
}

// Error is why a node's run stopped, with everything a person needs to go on.
type Error struct {
	Node    string
	Op      Op // "" while observing
	Stage   Stage
	Waiting string    // what was waited for when it stopped
	Since   time.Time // since when
	Log     []string  // the machine's last lines
	Next    string    // the command that goes on
	Err     error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Node)
	cause := e.Err.Error()
	if e.Op != "" && !strings.HasPrefix(cause, string(e.Op)+":") {
		fmt.Fprintf(&b, ": %s", e.Op)
	}
	fmt.Fprintf(&b, ": %s", cause)
	if e.Waiting != "" && !e.Since.IsZero() {
		fmt.Fprintf(&b, " (waited for %s since %s)", e.Waiting, e.Since.Format("15:04:05"))
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }
