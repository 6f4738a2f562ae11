package stream

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// chunk is how much may be written under one deadline: a big frame on a slow line is no silence.
const chunk = 64 << 10

// link is one connection: frames in both directions, each read and write with a deadline of its own.
type link struct {
	conn net.Conn
	in   *bufio.Reader

	mu  sync.Mutex // one frame after the other
	out []byte

	hmu        sync.Mutex
	heard      time.Time // zero: never
	heardSent  int64     // what the other side's last heartbeat said of its time
	roundTrip  time.Duration
	clockAhead time.Duration // other side's − ours
}

// patient gives each read and write, not each frame, the time that the other side may be silent.
type patient struct {
	net.Conn
	silence time.Duration
}

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(p.silence)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p patient) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		if err = p.SetWriteDeadline(time.Now().Add(p.silence)); err != nil {
			break
		}
		var m int
		m, err = p.Conn.Write(b[:min(len(b), chunk)])
		n, b = n+m, b[m:]
	}
	return n, err
}

func newLink(c net.Conn, silence time.Duration) *link {
	p := patient{c, silence}
	return &link{conn: p, in: bufio.NewReaderSize(p, chunk)}
}

// message is a frame to be sent.
type message struct {
	kind    kind
	payload []byte
}

func (l *link) send(messages ...message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = l.out[:0]
	for _, m := range messages {
		l.out = appendFrame(l.out, m.kind, m.payload)
	}
	b := l.out
	if cap(b) > 1<<20 {
		l.out = nil
	}
	_, err := l.conn.Write(b)
	return err
}

func (l *link) receive() (kind, []byte, error) { return readFrame(l.in) }

// beat completes a heartbeat with what measures the way there and back.
func (l *link) beat(h Heartbeat) message {
	l.hmu.Lock()
	defer l.hmu.Unlock()
	now := time.Now()
	h.sent, h.echo = now.UnixNano(), l.heardSent
	if h.echo != 0 {
		h.held = int64(now.Sub(l.heard))
	}
	return message{kindHeartbeat, h.encode()}
}

// hear takes up the other side's heartbeat.
func (l *link) hear(h Heartbeat) {
	l.hmu.Lock()
	defer l.hmu.Unlock()
	now := time.Now()
	l.heard, l.heardSent = now, h.sent
	if h.echo != 0 {
		l.roundTrip = max(0, time.Duration(now.UnixNano()-h.echo-h.held))
		l.clockAhead = time.Duration(h.sent - now.Add(-l.roundTrip/2).UnixNano())
	}
}

func (l *link) measured() (heard time.Time, roundTrip, clockAhead time.Duration) {
	l.hmu.Lock()
	defer l.hmu.Unlock()
	return l.heard, l.roundTrip, l.clockAhead
}
