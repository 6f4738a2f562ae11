package fault

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Waiting is a command that is held, or parked to land later.
type Waiting struct {
	Event   Event
	control *Control
	run     func(context.Context) (bson.D, error) // of a parked one
	release chan error                            // of a held one
}

// Parked says that it is parked; else it is held.
func (w *Waiting) Parked() bool { return w.run != nil }

func (c *Control) add(w *Waiting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, w)
	c.signal()
}

// take removes w; false if somebody else has.
func (c *Control) take(w *Waiting) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.waiting, w)
	if i < 0 {
		return false
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	c.signal()
	return true
}

func (c *Control) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Control) hold(ctx context.Context, e Event) error {
	w := &Waiting{Event: e, control: c, release: make(chan error, 1)}
	c.add(w)
	select {
	case err := <-w.release:
		return err
	case <-ctx.Done():
		c.take(w)
		return context.Cause(ctx)
	}
}

// Waiting lists what is held or parked, in the order it came.
func (c *Control) Waiting() []*Waiting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.waiting)
}

// Await returns when at least n commands are held or parked, with all that are.
func (c *Control) Await(ctx context.Context, n int) ([]*Waiting, error) {
	for {
		c.mu.Lock()
		all, changed := slices.Clone(c.waiting), c.changed
		c.mu.Unlock()
		if len(all) >= n {
			return all, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return all, context.Cause(ctx)
		}
	}
}

// Release lets a held command go on.
func (w *Waiting) Release() { w.end(nil) }

// Drop makes a parked command vanish, or a held one fail with ErrCut.
func (w *Waiting) Drop() { w.end(ErrCut) }

func (w *Waiting) end(err error) {
	if w.control.take(w) && w.release != nil {
		w.release <- err
	}
}

// Land runs a parked command now, and returns what its sender would have seen. It passes no further fault. ErrDropped
// says that it landed already, was dropped, or that its server went down meanwhile.
func (w *Waiting) Land(ctx context.Context) (bson.D, error) {
	if !w.Parked() || !w.control.take(w) {
		return nil, ErrDropped
	}
	return w.run(ctx)
}

// Interrupt ends all that is held with err and drops all that is parked: what a server that goes down does to what it
// had taken.
func (c *Control) Interrupt(err error) {
	c.mu.Lock()
	all := c.waiting
	c.waiting = nil
	c.signal()
	c.mu.Unlock()
	for _, w := range all {
		if w.release != nil {
			w.release <- err
		}
	}
}
