package web

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"popfleet/examples/comments/live"
)

const (
	// keepAlive is how often a silent stream says a word, so that nobody between takes it for dead.
	keepAlive = 15 * time.Second
	// writeTime is how long a client may take to accept one event.
	writeTime = 10 * time.Second
	// retryHint is what a client is told to wait before it comes back, in milliseconds.
	retryHint = 1000
)

// hello is the first event's data.
type hello struct {
	Node    string `json:"node"`
	Version string `json:"version"`
}

func (s *Server) threadEvents(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, ThreadsTopic)
}

func (s *Server) commentEvents(w http.ResponseWriter, r *http.Request) {
	t, err := s.visible(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, t.ID)
}

// stream sends a topic's events until the client leaves or the node drains. The first is "hello": what the client reads
// after it, it reads after watching began, so it misses nothing. The last is "bye".
func (s *Server) stream(w http.ResponseWriter, r *http.Request, topic string) {
	who := client(r)
	if !s.streams.take(who) {
		tooMany(w, "too many open streams from your address")
		return
	}
	defer s.streams.give(who)
	watcher, err := s.hub.Watch(r.Context(), topic)
	switch {
	case errors.Is(err, live.ErrFull), errors.Is(err, live.ErrEnded):
		w.Header().Set("Retry-After", "1")
		reply(w, http.StatusServiceUnavailable, failure{Error: err.Error()})
		return
	case err != nil:
		s.fail(w, r, err)
		return
	}
	defer watcher.Stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	s.send(w, r, watcher)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, watcher *live.Watcher) {
	out := http.NewResponseController(w)
	say := func(format string, a ...any) bool {
		// What can't hold a deadline is a test's recorder.
		_ = out.SetWriteDeadline(time.Now().Add(writeTime))
		_, err := fmt.Fprintf(w, format, a...)
		return err == nil && out.Flush() == nil
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	ok := say("retry: %d\nevent: hello\ndata: %s\n\n", retryHint, encode(hello{Node: s.options.Node, Version: s.options.Version}))
	for ok {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			ok = say(": still here\n\n")
		case e, open := <-watcher.C:
			if !open {
				say("retry: %d\nevent: bye\ndata: {}\n\n", retryHint)
				return
			}
			// JSON has no raw line breaks, so one data line holds it.
			ok = say("id: %s-%d\nevent: %s\ndata: %s\n\n", e.ID, e.Revision, e.Kind, e.Data)
		}
	}
}
