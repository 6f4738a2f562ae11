// Package live tells those who watch a topic what changes in it: at once what this node writes, within a second or two
// what others wrote, by looking at the store (FerretDB has no change streams). A watcher may miss nothing that lies in
// the store when it began to watch or later; it may see a change twice, never an older one after a newer. A watcher
// who can't keep up is cut off, and is expected to come back.
package live

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Event is one document's new state.
type Event struct {
	Kind     string // thread or comment
	ID       string
	Revision int64
	Data     []byte // JSON, as everyone may see it
}

// Look returns what changed in a topic at or after since, in any order; the zero time asks for everything recent. It is
// called from the hub's goroutine and from Watch, with a deadline.
type Look func(ctx context.Context, topic string, since time.Time) ([]Event, error)

// Reasons why Watch says no.
var (
	ErrFull  = errors.New("too many watchers")
	ErrEnded = errors.New("no new watchers: this node is draining")
)

const (
	buffer = 64
	// overlap is how far behind the clock a look reaches: clocks of the nodes differ, and another node's write arrives
	// some time after it was stamped.
	overlap = time.Minute
	// Every so many looks one asks for everything recent: after a partition, writes arrive that are older than overlap.
	fullEvery   = 30
	lookTimeout = 10 * time.Second
)

// Hub is where topics and watchers meet.
type Hub struct {
	look  Look
	limit int
	log   *slog.Logger

	mu     sync.Mutex
	topics map[string]*topic // guarded by mu, as all below
	count  int
	ended  bool
}

type topic struct {
	ready chan struct{} // closed after the first look, whose end is err
	err   error
	// guarded by the hub's mutex:
	watchers map[*Watcher]struct{}
	seen     map[string]int64 // revision by document
	looks    int
}

// Watcher receives one topic's events until C is closed: by Stop, by Drain or because it fell behind.
type Watcher struct {
	C     <-chan Event
	c     chan Event
	hub   *Hub
	of    *topic
	topic string
}

// New makes a hub for at most limit watchers.
func New(look Look, limit int, log *slog.Logger) *Hub {
	return &Hub{look: look, limit: limit, log: log, topics: map[string]*topic{}}
}

// Watch begins to watch. What the store held before it returns is not told.
func (h *Hub) Watch(ctx context.Context, name string) (*Watcher, error) {
	w, t, first, err := h.add(name)
	if err != nil {
		return nil, err
	}
	if first {
		// So that whatever shows up in later looks is known to be new.
		t.err = h.lookAt(ctx, name, true)
		close(t.ready)
	}
	select {
	case <-t.ready:
		err = t.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		w.Stop()
		return nil, err
	}
	return w, nil
}

func (h *Hub) add(name string) (w *Watcher, t *topic, first bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return nil, nil, false, ErrEnded
	case h.count >= h.limit:
		return nil, nil, false, ErrFull
	}
	t = h.topics[name]
	if first = t == nil; first {
		t = &topic{watchers: map[*Watcher]struct{}{}, seen: map[string]int64{}, ready: make(chan struct{})}
		h.topics[name] = t
	}
	c := make(chan Event, buffer)
	w = &Watcher{C: c, c: c, hub: h, of: t, topic: name}
	t.watchers[w] = struct{}{}
	h.count++
	return w, t, first, nil
}

// Stop ends watching; it may be called more than once.
func (w *Watcher) Stop() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.hub.remove(w)
}

func (h *Hub) remove(w *Watcher) {
	t := w.of
	if _, there := t.watchers[w]; !there {
		return
	}
	delete(t.watchers, w)
	close(w.c)
	h.count--
	if len(t.watchers) == 0 && h.topics[w.topic] == t {
		delete(h.topics, w.topic)
	}
}

// Publish tells the topic's watchers, if this is news.
func (h *Hub) Publish(name string, e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[name]; t != nil {
		h.publish(t, e)
	}
}

func (h *Hub) publish(t *topic, e Event) {
	if t.seen[e.ID] >= e.Revision {
		return
	}
	t.seen[e.ID] = e.Revision
	for w := range t.watchers {
		select {
		case w.c <- e:
		default:
			h.remove(w)
		}
	}
}

// Watchers is how many there are.
func (h *Hub) Watchers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Drain ends every watcher and takes no new ones; Undrain takes that back.
func (h *Hub) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for _, t := range h.topics {
		for w := range t.watchers {
			h.remove(w)
		}
	}
}

// Undrain lets watchers in again.
func (h *Hub) Undrain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = false
}

// Run looks at every watched topic once per interval until ctx ends.
func (h *Hub) Run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.lookAtAll(ctx)
		}
	}
}

func (h *Hub) lookAtAll(ctx context.Context) {
	for _, name := range h.watched() {
		if err := h.lookAt(ctx, name, false); err != nil && ctx.Err() == nil {
			h.log.Warn("look for changes", "topic", name, "error", err)
			return // the store is away for all topics
		}
	}
}

func (h *Hub) watched() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name := range h.topics {
		names = append(names, name)
	}
	return names
}

// lookAt asks the store for a topic's changes. A silent look only learns what is there.
func (h *Hub) lookAt(ctx context.Context, name string, silent bool) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	events, err := h.look(ctx, name, h.since(name, silent))
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil {
		return nil
	}
	for _, e := range events {
		if silent {
			t.seen[e.ID] = max(t.seen[e.ID], e.Revision)
		} else {
			h.publish(t, e)
		}
	}
	return nil
}

func (h *Hub) since(name string, silent bool) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil || silent {
		return time.Time{}
	}
	t.looks++
	if t.looks%fullEvery == 0 {
		return time.Time{}
	}
	return time.Now().Add(-overlap)
}
