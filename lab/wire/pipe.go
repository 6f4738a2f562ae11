// Package wire is an in-memory network connection for the lab: buffered like TCP, with a one-way delay, and with the
// ways in which real connections die. It opens no socket. A peer that does not read blocks the writer once the window
// is full, as TCP does.
package wire

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const windowBytes = 4 << 20

// Pipe returns the two ends of a connection; what one writes the other reads oneWay later.
func Pipe(oneWay time.Duration, a, b net.Addr) (net.Conn, net.Conn) {
	ab, ba := newHalf(oneWay), newHalf(oneWay)
	return &conn{in: ba, out: ab, local: a, remote: b}, &conn{in: ab, out: ba, local: b, remote: a}
}

type chunk struct {
	data []byte
	due  time.Time
}

// half is one direction.
type half struct {
	delay time.Duration

	mu            sync.Mutex
	changed       chan struct{} // closed and replaced whenever something below changes
	chunks        []chunk
	size          int
	eof           bool      // the writer closed: read what is left, then EOF
	eofDue        time.Time // the close travels too
	broken        error     // reset: nothing more is read or written
	readDeadline  time.Time
	writeDeadline time.Time
}

func newHalf(delay time.Duration) *half {
	return &half{delay: delay, changed: make(chan struct{})}
}

func (h *half) signal() { // with mu held
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait releases mu until something changes or one of the times (zero: never) comes, and takes it again.
func (h *half) wait(times ...time.Time) {
	ch := h.changed
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	h.mu.Unlock()
	defer h.mu.Lock()
	if first.IsZero() {
		<-ch
		return
	}
	timer := time.NewTimer(time.Until(first))
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
	}
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.broken != nil {
			return 0, h.broken
		}
		if expired(h.readDeadline) {
			return 0, os.ErrDeadlineExceeded
		}
		var due time.Time
		if len(h.chunks) > 0 {
			if due = h.chunks[0].due; expired(due) {
				return h.take(p), nil
			}
		} else if h.eof {
			if due = h.eofDue; expired(due) {
				return 0, io.EOF
			}
		}
		h.wait(due, h.readDeadline)
	}
}

func (h *half) take(p []byte) int {
	n := 0
	for len(h.chunks) > 0 && n < len(p) && expired(h.chunks[0].due) {
		c := copy(p[n:], h.chunks[0].data)
		n += c
		if h.chunks[0].data = h.chunks[0].data[c:]; len(h.chunks[0].data) == 0 {
			h.chunks = h.chunks[1:]
		}
	}
	h.size -= n
	h.signal()
	return n
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for done < len(p) {
		switch {
		case h.broken != nil:
			return done, syscall.ECONNRESET
		case h.eof:
			return done, syscall.EPIPE
		case expired(h.writeDeadline):
			return done, os.ErrDeadlineExceeded
		case h.size >= windowBytes:
			h.wait(h.writeDeadline)
			continue
		}
		n := min(len(p)-done, windowBytes-h.size)
		// A due time exactly now must count as come: After(now) would cost a wake-up for nothing.
		h.chunks = append(h.chunks, chunk{append([]byte(nil), p[done:done+n]...), time.Now().Add(h.delay)})
		h.size += n
		done += n
		h.signal()
	}
	return done, nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.eof {
		h.eof, h.eofDue = true, time.Now().Add(h.delay)
		h.signal()
	}
}

func (h *half) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken == nil {
		h.broken, h.chunks, h.size = err, nil, 0
		h.signal()
	}
}

func (h *half) setDeadline(which *time.Time, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*which = t
	h.signal()
}

type conn struct {
	in, out       *half
	local, remote net.Addr
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close sends what was written, then the end; reads on this side end at once.
func (c *conn) Close() error {
	c.out.close()
	c.in.fail(net.ErrClosed)
	return nil
}

// CloseWrite ends this side's stream and leaves the other open.
func (c *conn) CloseWrite() error { c.out.close(); return nil }

// Cut breaks the connection in both directions at once, as a lost host does once noticed.
func (c *conn) Cut() {
	c.in.fail(syscall.ECONNRESET)
	c.out.fail(syscall.ECONNRESET)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readDeadline, t)
	c.out.setDeadline(&c.out.writeDeadline, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readDeadline, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeDeadline, t)
	return nil
}

// Cut breaks c at once: a connection of this package in both directions, any other by closing it.
func Cut(c net.Conn) {
	if w, ok := c.(interface{ Cut() }); ok {
		w.Cut()
		return
	}
	_ = c.Close() // nothing more can be done to it
}
