package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
)

// A line of the exchange is at most this long (docs/protocols/exchange.md).
const maxLineBytes = 24 << 20

// Exchange is one running `fleet-agent exchange`: requests follow each other on it, one round trip each. It serves one
// Do at a time and is dead after any error that is not a *spec.Error.
type Exchange struct {
	conn    *Conn
	session *ssh.Session
	in      io.WriteCloser
	out     *bufio.Reader
	stderr  *tail
	logs    *tail

	mu   sync.Mutex // held during Do
	last int        // id of the last request
	// giveUp ends the exchange when a deadline passes: with its connection, or alone when it is a side exchange.
	giveUp func()
	// waiting is true until the first event proves that the shipped agent runs.
	waiting bool
}

// Exchange starts the agent on the machine, shipping it first when it is not there. ctx bounds the start only. events
// may be nil; it hears of the shipping.
func (c *Conn) Exchange(ctx context.Context, a Agent, events func(spec.Event)) (*Exchange, error) {
	command, err := a.command()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.link.Close() })
	defer stop()
	x, err := c.start(command)
	if err != nil {
		return nil, c.inTime(ctx, fmt.Errorf("start fleet-agent: %w", err))
	}
	x.giveUp = func() { c.link.Close() }
	if err := x.bootstrap(ctx, a, orNothing(events)); err != nil {
		x.Close()
		return nil, c.inTime(ctx, err)
	}
	return x, nil
}

// Side starts another exchange beside the one in progress on the same connection. Its deadlines, in ctx here and in Do,
// end it alone; only the connection's own silence ends the connection.
func (c *Conn) Side(ctx context.Context, a Agent) (*Exchange, error) {
	command, err := a.command()
	if err != nil {
		return nil, err
	}
	x, err := c.start(command)
	if err != nil {
		return nil, fmt.Errorf("start fleet-agent beside: %w", c.cause(err))
	}
	x.giveUp = func() { _ = x.Close() } // it may have ended by itself
	stop := context.AfterFunc(ctx, x.giveUp)
	defer stop()
	if err := x.bootstrap(ctx, a, orNothing(nil)); err != nil {
		x.giveUp()
		return nil, c.inTime(ctx, err)
	}
	return x, nil
}

func (c *Conn) start(command string) (*Exchange, error) {
	s, err := c.client.NewSession()
	if err != nil {
		return nil, err
	}
	x := &Exchange{conn: c, session: s, stderr: newTail(), logs: newTail(), waiting: true}
	s.Stderr = x.stderr
	if x.in, err = s.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.StdoutPipe()
	if err != nil {
		return nil, err
	}
	x.out = bufio.NewReaderSize(out, 16<<10)
	return x, s.Start(command)
}

// inTime names the deadline or the silence that ended the link instead of the broken pipe it left behind.
func (c *Conn) inTime(ctx context.Context, err error) error {
	var told *spec.Error
	switch {
	case err == nil || errors.As(err, &told):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", err, context.Cause(ctx))
	case c.link.dead() != nil:
		return fmt.Errorf("%w: %w", err, c.link.dead())
	}
	return err
}

// Close ends the exchange; the connection stays usable.
func (x *Exchange) Close() error {
	x.in.Close()
	err := x.session.Close()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Call is one request.
type Call struct {
	Op     string
	Spec   any              // nil: none
	Result any              // pointer, or nil when the result does not matter
	Events func(spec.Event) // every event but the last, from the goroutine of Do; may be nil
	Blobs  Blobs            // answers "need"; nil: any need is an error
	Peers  Peers            // who may answer it instead of us; nil: nobody
	Packs  *Packs           // compresses what is sent, once for all; nil: it goes as it is
}

// Do sends one request and returns at its result. An error the machine reports is a *spec.Error; a connection lost on
// the way is a *CutError, and what the request was doing may go on without it. When ctx ends, the connection is closed:
// the protocol has no way to take a request back.
func (x *Exchange) Do(ctx context.Context, c Call) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	stop := context.AfterFunc(ctx, x.giveUp)
	defer stop()
	x.last++
	if err := x.send(c); err != nil {
		return x.conn.inTime(ctx, fmt.Errorf("%s: %w", c.Op, x.whyUnsent(err)))
	}
	data, err := x.follow(ctx, c)
	if err != nil {
		return x.conn.inTime(ctx, fmt.Errorf("%s: %w", c.Op, err))
	}
	if c.Result == nil || len(data) == 0 {
		return nil
	}
	// Unknown fields of an answer are ignored: a newer agent may say more.
	if err := json.Unmarshal(data, c.Result); err != nil {
		return fmt.Errorf("%s: read result: %w", c.Op, err)
	}
	return nil
}

// whyUnsent: an agent that arrived damaged says so and hangs up, which may be noticed by the request that follows.
func (x *Exchange) whyUnsent(err error) error {
	if x.waiting {
		if _, said := x.next(); errors.Is(said, ErrBadDigest) {
			return said
		}
	}
	return x.cut(err)
}

func (x *Exchange) send(c Call) error {
	r := spec.Request{V: 1, ID: x.last, Op: c.Op}
	if c.Spec != nil {
		raw, err := json.Marshal(c.Spec)
		if err != nil {
			return err
		}
		r.Spec = raw
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(line) >= maxLineBytes {
		return fmt.Errorf("request of %d bytes: a line holds at most %d", len(line), maxLineBytes)
	}
	_, err = x.in.Write(append(line, '\n'))
	return err
}

// follow reads events until the request's last one. Blobs are fed beside it, so that progress is heard while they
// travel; the feeder never outlives follow.
func (x *Exchange) follow(ctx context.Context, c Call) (json.RawMessage, error) {
	feed := newFeeder(ctx, x, c)
	defer feed.wait()
	events := orNothing(c.Events)
	for {
		e, err := x.next()
		if err != nil {
			feed.stop()
			return nil, errors.Join(feed.failure(), err)
		}
		if e.ID != x.last {
			continue // the end of an earlier, abandoned request
		}
		switch e.Kind {
		case spec.KindResult:
			return e.Data, feed.failure()
		case spec.KindError:
			return nil, reported(e)
		case spec.KindNeed:
			events(e)
			if err := feed.start(e.Blobs, e.Accept); err != nil {
				return nil, err
			}
		case spec.KindLog:
			x.logs.add(e.Text)
			events(e)
		default:
			events(e)
		}
	}
}

func reported(e spec.Event) error {
	if e.Error == nil {
		return &spec.Error{Code: "unknown", Message: "the machine reported an error without saying which"}
	}
	return e.Error
}

func (x *Exchange) next() (spec.Event, error) {
	line, err := x.readLine()
	if err != nil {
		return spec.Event{}, err
	}
	var e spec.Event
	if err := json.Unmarshal(line, &e); err != nil {
		if x.waiting && string(line) == "BADDIGEST" {
			return e, ErrBadDigest
		}
		return e, fmt.Errorf("read event %q: %w", shorten(line), err)
	}
	x.waiting = false
	return e, nil
}

// readLine reads one line within the bound, without its newline.
func (x *Exchange) readLine() ([]byte, error) {
	var line []byte
	for {
		part, err := x.out.ReadSlice('\n')
		if len(line)+len(part) > maxLineBytes {
			return nil, fmt.Errorf("a line of more than %d bytes", maxLineBytes)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, x.cut(err)
		}
	}
}

// CutError: the connection or the agent ended before the request did.
type CutError struct {
	Stderr []string // the agent's last lines
	Err    error
}

func (e *CutError) Error() string {
	msg := "the exchange ended before its answer"
	if e.Err != nil && !errors.Is(e.Err, io.EOF) {
		msg += ": " + e.Err.Error()
	}
	if len(e.Stderr) > 0 {
		msg += "; last it said: " + strings.Join(e.Stderr, " | ")
	}
	return msg
}

func (e *CutError) Unwrap() error { return e.Err }

func (x *Exchange) cut(err error) error {
	return &CutError{Stderr: x.stderr.lines(), Err: x.conn.cause(err)}
}

// Tail is the last lines the machine logged, for a person who must find out what went wrong.
func (x *Exchange) Tail() []string { return append(x.logs.lines(), x.stderr.lines()...) }

func orNothing(f func(spec.Event)) func(spec.Event) {
	if f == nil {
		return func(spec.Event) {}
	}
	return f
}
