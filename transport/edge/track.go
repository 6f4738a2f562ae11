package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Count is what runs now and what was done since the start.
type Count struct {
	Connections int64 `json:"connections"`
	Requests    int64 `json:"requests"` // running, without streams
	Streams     int64 `json:"streams"`  // running websockets and event streams
	Served      int64 `json:"served"`
	Refused     int64 `json:"refused"` // over the limits
}

// Running says whether anything runs.
func (c Count) Running() bool { return c.Requests+c.Streams > 0 }

// Count returns the counters.
func (e *Edge) Count() Count {
	t := &e.active
	t.mu.Lock()
	streams := int64(len(t.streams))
	t.mu.Unlock()
	return Count{Connections: t.connections.Load(), Requests: max(0, t.running.Load()-streams), Streams: streams, Served: t.served.Load(), Refused: t.refused.Load()}
}

// CutStreams ends all websockets and event streams: their clients are made to come back, plain requests are not.
func (e *Edge) CutStreams() {
	e.active.mu.Lock()
	defer e.active.mu.Unlock()
	for q := range e.active.streams {
		q.cancel()
	}
}

// tracker counts.
type tracker struct {
	connections, running, served, refused atomic.Int64

	mu sync.Mutex
	// guarded by mu
	streams map[*request]bool
}

func (t *tracker) begin(limit int64) bool {
	n := t.running.Add(1)
	t.mu.Lock()
	n -= int64(len(t.streams))
	t.mu.Unlock()
	if n > limit {
		t.running.Add(-1)
		t.refused.Add(1)
		return false
	}
	return true
}

func (t *tracker) connection(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		t.connections.Add(1)
	case http.StateHijacked, http.StateClosed:
		t.connections.Add(-1)
	}
}

// request is one request in progress, as the proxy writes to it.
type request struct {
	http.ResponseWriter
	edge    *Edge
	control *http.ResponseController
	cancel  context.CancelFunc
	h1      bool
	cutOff  atomic.Bool // the client did not send its body to the end
}

// Unwrap lets http.ResponseController reach flushing and hijacking.
func (q *request) Unwrap() http.ResponseWriter { return q.ResponseWriter }

func (q *request) end() {
	if q.h1 { // what the server still has to flush; the next request on the connection takes it off
		q.deadline(q.edge.stall)
	}
	t := &q.edge.active
	t.mu.Lock()
	delete(t.streams, q)
	t.mu.Unlock()
	t.running.Add(-1)
	t.served.Add(1)
}

// WriteHeader tells clients to go when the node is leaving, also those whose request began before that.
func (q *request) WriteHeader(code int) {
	if q.edge.leaving.Load() && code >= http.StatusOK {
		q.Header().Set("Connection", "close")
	}
	q.ResponseWriter.WriteHeader(code)
}

// errStreams is the answer to a stream over the limit.
var errStreams = errors.New("too many streams")

// sortOut sees the application's answer before the client does, and counts websockets and event streams apart.
func sortOut(res *http.Response) error {
	upgraded := res.StatusCode == http.StatusSwitchingProtocols
	if !upgraded && !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		return nil
	}
	q, ok := res.Request.Context().Value(requestKey{}).(*request)
	if !ok {
		return nil
	}
	t := &q.edge.active
	t.mu.Lock()
	defer t.mu.Unlock()
	if int64(len(t.streams)) >= q.edge.cfg.Limits.Streams {
		t.refused.Add(1)
		return errStreams
	}
	t.streams[q] = true
	return nil
}

// requestKey finds the request in its context.
type requestKey struct{}

// Write gives the client a time to take each piece. Between the pieces there is no deadline: HTTP/2 would end a stream
// that is merely silent.
func (q *request) Write(b []byte) (int, error) {
	q.deadline(q.edge.stall)
	defer q.deadline(0)
	return q.ResponseWriter.Write(b)
}

// FlushError is like Write.
func (q *request) FlushError() error {
	q.deadline(q.edge.stall)
	defer q.deadline(0)
	return q.control.Flush()
}

// deadline is for the next writes; 0 takes it off.
func (q *request) deadline(d time.Duration) {
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	_ = q.control.SetWriteDeadline(at) // a hijacked connection has its own
}

// body gives the client stallTimeout for each piece it sends. The deadline is taken off at the end, or it would end
// the answer: the server watches the connection for the client leaving.
type body struct {
	io.ReadCloser
	request *request
}

func (b *body) Read(p []byte) (int, error) {
	_ = b.request.control.SetReadDeadline(time.Now().Add(b.request.edge.stall))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.request.control.SetReadDeadline(time.Time{})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.request.cutOff.Store(true)
	}
	return n, err
}
