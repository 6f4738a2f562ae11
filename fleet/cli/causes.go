package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
	"popfleet/provision/stack"
)

// failure is a node that failed; "" stands for the objects that the nodes of a provider share.
type failure struct {
	node string
	err  error
}

// cause is one reason for which nodes failed; a person reads it once, however many they are.
type cause struct {
	failure           // the first
	nodes    []string // all of them
	failures []failure
}

// causes gathers failures that tell the same, in the order in which the first of each comes.
func causes(failed []failure) []cause {
	var out []cause
	at := map[string]int{}
	for _, f := range failed {
		k := f.key()
		i, known := at[k]
		if !known {
			i, at[k] = len(out), len(out)
			out = append(out, cause{failure: f})
		}
		out[i].failures = append(out[i].failures, f)
		out[i].nodes = append(out[i].nodes, f.name())
	}
	return out
}

func (f failure) name() string {
	if f.node == "" {
		return "provider"
	}
	return f.node
}

// key is the same for failures that need one look. Who shows a wrong host key or is suspect is looked at one by one.
func (f failure) key() string {
	if e := f.silent(); e != nil {
		return "unreachable " + e.Provider
	}
	if errors.As(f.err, new(*remote.HostKeyError)) || errors.Is(f.err, lifecycle.ErrSuspect) {
		return "node " + f.node
	}
	var e *lifecycle.Error
	if errors.As(f.err, &e) {
		return string(e.Op) + ": " + f.bare(e.Err.Error())
	}
	return f.bare(f.err.Error())
}

// particulars differ from node to node when the cause is the same: numbers, times, addresses, ids.
var particulars = regexp.MustCompile(`HTTP \d+|[0-9a-f]{8,}|\d+(\.\d+)*(ms|s|m|h)?`)

func (f failure) bare(text string) string {
	if f.node != "" {
		text = strings.ReplaceAll(text, f.node, "NODE")
	}
	return particulars.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "HTTP") {
			return s
		}
		return "#"
	})
}

// silent is the provider's silence that the cause is, or nil.
func (f failure) silent() *stack.UnreachableError {
	var e *stack.UnreachableError
	if errors.As(f.err, &e) {
		return e
	}
	return nil
}

// reason is the cause in words, without a node's name.
func (c cause) reason() string {
	if e := c.silent(); e != nil {
		return e.Error()
	}
	return strings.TrimPrefix(c.err.Error(), c.name()+": ")
}

// text is the cause as it is told: of one node with its name, of several with their number.
func (c cause) text() string {
	if len(c.nodes) == 1 {
		return c.name() + ": " + c.reason()
	}
	return fmt.Sprintf("%d nodes: %s", len(c.nodes), c.reason())
}

// shownLog is how many of a machine's last lines are shown when it fails; .fleet/log.jsonl has more.
const shownLog = 8

// log are the last lines of the first machine.
func (c cause) log() []string {
	var e *lifecycle.Error
	if !errors.As(c.err, &e) {
		return nil
	}
	return e.Log[max(0, len(e.Log)-shownLog):]
}

// next is what to do, each thing once.
func (c cause) next() (all []string) {
	if e := c.silent(); e != nil {
		return []string{silentNext(e)}
	}
	for _, f := range c.failures {
		var e *lifecycle.Error
		if errors.As(f.err, &e) && e.Next != "" && !slices.Contains(all, e.Next) {
			all = append(all, e.Next)
		}
	}
	return all
}

func silentNext(e *stack.UnreachableError) string {
	do := "look at what " + e.Provider + " says of its service"
	if errors.Is(e, provider.ErrUnauthorized) || errors.As(e, new(*credentialsError)) {
		do = "set its credentials right"
	}
	return do + "; nothing was done to them, and they are left as they are until it answers"
}

// sayFailed prints why nodes failed: each reason once, the machine's last lines, and what to do next.
func (s *session) sayFailed(failed ...failure) {
	out := s.app.out
	for _, c := range causes(failed) {
		out.say("%s %s", out.paint(red, "✗"), c.text())
		if len(c.nodes) > 1 {
			out.say("    %s", strings.Join(c.nodes, ", "))
		}
		for _, line := range c.log() {
			out.say("    | %s", line)
		}
		for _, next := range c.next() {
			out.say("    next: %s", next)
		}
	}
}
