package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"popfleet/playbooks/spec"
)

const (
	writeQueue  = 4096             // events that may wait for a slow link
	stallLimit  = 2 * time.Minute  // a peer that takes nothing for so long is gone
	flushOnExit = 20 * time.Second // what the last events get when the exchange ends
)

// ErrStalled ends an exchange whose peer stopped reading.
var ErrStalled = errors.New("the operator's side stopped reading")

// writer sends events from one goroutine, so that a handler is never held by a slow or dead link for ever.
type writer struct {
	queue  chan spec.Event
	cancel context.CancelCauseFunc
	done   chan struct{}
	once   sync.Once
	gone   chan struct{} // closed when nothing more can be written
}

func newWriter(out io.Writer, cancel context.CancelCauseFunc) *writer {
	w := &writer{queue: make(chan spec.Event, writeQueue), cancel: cancel, done: make(chan struct{}), gone: make(chan struct{})}
	go w.run(out)
	return w
}

func (w *writer) run(out io.Writer) {
	defer close(w.done)
	for e := range w.queue {
		line, err := json.Marshal(e)
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		if err != nil {
			w.lose(fmt.Errorf("write to the operator: %w", err))
			return
		}
	}
}

func (w *writer) lose(err error) {
	w.once.Do(func() {
		close(w.gone)
		w.cancel(err)
	})
}

// send queues e; it waits while the queue is full, and gives the peer up after stallLimit.
func (w *writer) send(e spec.Event) {
	e.V, e.Time = Version, time.Now().UTC()
	select {
	case <-w.gone:
		return
	case w.queue <- e:
		return
	default:
	}
	t := time.NewTimer(stallLimit)
	defer t.Stop()
	select {
	case <-w.gone:
	case w.queue <- e:
	case <-t.C:
		w.lose(ErrStalled)
	}
}

// close lets the queued events out, within flushOnExit. A write that hangs for longer ends with the process.
func (w *writer) close() {
	close(w.queue)
	t := time.NewTimer(flushOnExit)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
	}
}
