package back

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// probeAfter is how long a connection may lie unused before it is looked at whether the backend has closed it.
const probeAfter = time.Second

// Counters tell how the pool is used.
type Counters struct {
	Open    int   `json:"open"` // connections, those being made included
	Idle    int   `json:"idle"`
	Waiting int   `json:"waiting"` // commands without a connection
	Cursors int   `json:"cursors"` // open, as far as tracked
	Dialed  int64 `json:"dialed"`  // since the start
	Broken  int64 `json:"broken"`  // connections closed after a failure
}

// Pool shares connections between commands.
type Pool struct {
	config   Config
	log      *slog.Logger
	codec    *wire.Codec
	memories sync.Pool // of *Reply, with the memory of its last message

	mu sync.Mutex
	// idle are the connections nobody uses, the last used at the end.
	idle []*conn
	// total counts idle, used and about to be made: at most config.Size.
	total int
	// waiting get a connection, or nil: a place to make one.
	waiting        []chan *conn
	closed         bool
	info           *Info
	cursors        cursors
	dialed, broken int64
}

// New makes a pool; it connects when first asked.
func New(config Config, log *slog.Logger) (*Pool, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, err
	}
	return &Pool{config: config, log: log, codec: codec, cursors: cursors{}}, nil
}

// Close closes connections as they get free; commands after it are refused.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		p.discard(c)
	}
	p.idle = nil
	p.wakeAll()
}

// Counters is a snapshot.
func (p *Pool) Counters() Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Counters{Open: p.total, Idle: len(p.idle), Waiting: len(p.waiting), Cursors: len(p.cursors), Dialed: p.dialed, Broken: p.broken}
}

// Info asks the backend who it is, once.
func (p *Pool) Info(ctx context.Context) (Info, error) {
	p.mu.Lock()
	known := p.info
	p.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	reply, info, err := p.do(ctx, Command{Body: buildInfo()}, nil)
	if err != nil {
		return Info{}, err
	}
	defer reply.Release()
	if err := reply.Err(); err != nil {
		return Info{}, fmt.Errorf("buildInfo: %w", err)
	}
	info.Version, _ = reply.Body.Lookup("version").StringValueOK()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info = &info
	return info, nil
}

// until is when waiting for anything ends.
func (p *Pool) until(ctx context.Context) time.Time {
	limit := time.Now().Add(p.config.CommandTimeout)
	if own, set := ctx.Deadline(); set && own.Before(limit) {
		return own
	}
	return limit
}

// acquire gives a connection to be alone on.
func (p *Pool) acquire(ctx context.Context, until time.Time) (*conn, error) {
	for {
		c, place, wait, err := p.take()
		switch {
		case err != nil:
			return nil, err
		case wait != nil:
			if c, err = p.wait(ctx, until, wait, &p.waiting); err != nil {
				return nil, err
			}
		case place:
			return p.dial(ctx, until)
		}
		if c != nil && (c.idleSince.IsZero() || p.fresh(c)) {
			return c, nil
		}
	}
}

// take gives an idle connection, a place to make one, or a channel to wait on.
func (p *Pool) take() (c *conn, place bool, wait chan *conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, nil, ErrClosed
	}
	if n := len(p.idle); n > 0 {
		c, p.idle = p.idle[n-1], p.idle[:n-1]
		return c, false, nil, nil
	}
	if p.total < p.config.Size {
		p.total++
		return nil, true, nil, nil
	}
	wait = make(chan *conn, 1)
	p.waiting = append(p.waiting, wait)
	return nil, false, wait, nil
}

// fresh looks whether an idle connection is still worth using; one that is not is closed.
func (p *Pool) fresh(c *conn) bool {
	age := time.Since(c.idleSince)
	if age < probeAfter || (age < p.config.IdleTimeout && alive(c.net)) {
		return true
	}
	c.spent = true
	p.release(c)
	return false
}

func (p *Pool) dial(ctx context.Context, until time.Time) (*conn, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	c, err := open(ctx, p.config, p.codec)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.total--
		p.wakeOne(nil)
		var inside *Error
		if errors.As(err, &inside) {
			err = inside.Err // of the greeting: no command of the caller's was sent
		}
		return nil, &Error{Op: "connect to " + p.config.Address, Err: err}
	}
	p.dialed++
	return c, nil
}

// wait waits in queue, a list under the pool's lock, until it is given a connection.
func (p *Pool) wait(ctx context.Context, until time.Time, turn chan *conn, queue *[]chan *conn) (*conn, error) {
	patience := time.NewTimer(time.Until(until))
	defer patience.Stop()
	cause := context.DeadlineExceeded
	select {
	case c := <-turn:
		return c, nil
	case <-patience.C:
	case <-ctx.Done():
		cause = ctx.Err()
	}
	p.mu.Lock()
	at := slices.Index(*queue, turn)
	if at >= 0 {
		*queue = slices.Delete(*queue, at, at+1)
	}
	p.mu.Unlock()
	if at < 0 { // given in the same moment: pass it on
		if c := <-turn; c != nil {
			p.release(c)
		} else {
			p.pass()
		}
	}
	return nil, &Error{Op: "wait for a connection", Err: cause}
}

// pass gives a place that wasn't used to the next.
func (p *Pool) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeOne(nil)
}

// release gives a connection back; one that is spent is closed.
func (p *Pool) release(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c.spent || p.closed:
		if c.spent && c.idleSince.IsZero() {
			p.broken++
		}
		p.discard(c)
		p.wakeOne(nil)
	case len(c.waiting) > 0:
		next := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.idleSince = time.Time{}
		next <- c
	case len(p.waiting) > 0:
		c.idleSince = time.Time{}
		p.wakeOne(c)
	default:
		c.idleSince = time.Now()
		p.idle = append(p.idle, c)
	}
}

// wakeOne gives c, or a place when nil, to who waits longest. The caller holds the lock.
func (p *Pool) wakeOne(c *conn) {
	if len(p.waiting) > 0 {
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		next <- c
	}
}

func (p *Pool) wakeAll() {
	for len(p.waiting) > 0 {
		p.wakeOne(nil)
	}
}

// discard closes a connection and what hangs on it. The caller holds the lock.
func (p *Pool) discard(c *conn) {
	c.dead = true
	c.net.Close()
	p.total--
	p.cursors.forgetAll(c)
	for _, turn := range c.waiting {
		turn <- nil
	}
	c.waiting = nil
}

func buildInfo() bson.Raw {
	body, err := bson.Marshal(bson.D{{Key: "buildInfo", Value: int32(1)}, {Key: "$db", Value: "admin"}})
	if err != nil {
		panic(err) // constant
	}
	return body
}
