// Package fault decides what befalls a command: it fails, its connection is cut before or after the effect, it waits
// until released, it lands long after its sender gave up, or it lands twice. What happens is chosen by rules or by one
// function of the test's, and when it happens by the test: nothing here sleeps or draws a random number of its own.
//
// It knows commands as closures only, so a landing goes through everything that a command goes through.
package fault

import (
	"context"
	"errors"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// What a client sees besides a reply or a command's error.
var (
	ErrCut     = errors.New("connection cut")          // the server closes the connection
	ErrSilence = errors.New("no reply will ever come") // the connection stays open and nothing comes
	ErrDropped = errors.New("the parked command is gone")
)

// Point is a place in a command's life.
type Point int

// Received: nothing was done yet. Applied: a write is in memory, and has not waited for its write concern. Replying: all
// is done but the answer.
const (
	Received Point = iota
	Applied
	Replying
)

func (p Point) String() string { return [...]string{"received", "applied", "replying"}[p] }

// Event is a command at a point.
type Event struct {
	Point   Point
	N       int64 // running number of the command, from 1; 0 for hello, ping and their like, which only a rule that names them hits
	DB      string
	Command string
	Coll    string
	Body    bson.D // read only
}

// Action is what befalls it. The zero Action lets it pass.
type Action struct {
	kind kind
	err  error
}

type kind int

const (
	pass kind = iota
	fail
	hold
	park
	duplicate
)

// Fail answers err; at Received without an effect, later despite it. Cut closes the connection the same way.
func Fail(err error) Action { return Action{kind: fail, err: err} }

// Cut closes the connection instead of going on.
func Cut() Action { return Fail(ErrCut) }

// Silence never answers.
func Silence() Action { return Fail(ErrSilence) }

// Hold waits at this point until the test releases it, or until the command's own deadline.
func Hold() Action { return Action{kind: hold} }

// Park, at Received, takes the command away to land when the test says; the client sees seen: ErrSilence, ErrCut, or a
// command's error.
func Park(seen error) Action { return Action{kind: park, err: seen} }

// Duplicate, at Received, runs the command as usual and parks a second copy of it.
func Duplicate() Action { return Action{kind: duplicate} }

// Rule is an action for the commands it fits.
type Rule struct {
	Point   Point
	Command string // "" for every command
	Coll    string // "" for every collection
	Where   func(Event) bool
	Skip    int // let so many fitting ones pass first
	Times   int // 0 for always
	Do      Action
}

// Control holds the rules and what waits. Its methods may be called from many goroutines.
type Control struct {
	mu      sync.Mutex
	rules   []*Rule
	decide  func(Event) Action
	waiting []*Waiting
	changed chan struct{} // closed and replaced when waiting changes
}

// NewControl makes one that lets everything pass.
func NewControl() *Control { return &Control{changed: make(chan struct{})} }

// Add puts a rule behind those that are there; the first one that fits acts.
func (c *Control) Add(r Rule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = append(c.rules, &r)
}

// Decide sets the function that is asked when no rule fits: a seeded scheduler is one of a few lines. It must not block
// and must not call the control. nil takes it away.
func (c *Control) Decide(f func(Event) Action) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decide = f
}

// Clear takes away all rules and the function; what waits stays.
func (c *Control) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules, c.decide = nil, nil
}

// Idle says that nothing can befall a command now.
func (c *Control) Idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.rules) == 0 && c.decide == nil
}

func (c *Control) choose(e Event) Action {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.rules {
		if r.Point != e.Point || r.Command != e.Command && (r.Command != "" || e.N == 0) || r.Coll != "" && r.Coll != e.Coll ||
			r.Where != nil && !r.Where(e) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			return Action{}
		}
		if r.Times > 0 {
			if r.Times--; r.Times == 0 {
				c.rules = append(c.rules[:i:i], c.rules[i+1:]...)
			}
		}
		return r.Do
	}
	if c.decide != nil && e.N > 0 {
		return c.decide(e)
	}
	return Action{}
}

// At lets what is chosen for a point within a command happen; an error ends the command there.
func (c *Control) At(ctx context.Context, e Event) error {
	a := c.choose(e)
	switch a.kind {
	case fail:
		return a.err
	case hold:
		return c.hold(ctx, e)
	}
	return nil
}

// Around runs a command between Received and Replying.
func (c *Control) Around(ctx context.Context, e Event, run func(context.Context) (bson.D, error)) (bson.D, error) {
	e.Point = Received
	switch a := c.choose(e); a.kind {
	case fail:
		return nil, a.err
	case hold:
		if err := c.hold(ctx, e); err != nil {
			return nil, err
		}
	case park:
		c.add(&Waiting{Event: e, control: c, run: run})
		return nil, a.err
	case duplicate:
		c.add(&Waiting{Event: e, control: c, run: run})
	}
	reply, err := run(ctx)
	e.Point = Replying
	if cut := c.At(ctx, e); cut != nil {
		return nil, cut
	}
	return reply, err
}
