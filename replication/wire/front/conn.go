package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"popfleet/replication/wire"
)

// conn is one client's connection, served by one goroutine.
type conn struct {
	server  *Server
	net     net.Conn
	in      *wire.Reader
	out     *wire.Writer
	client  Client
	strange time.Time // since when nobody is logged in
	sent    int32     // request ids of replies

	loggedIn bool
	login    login
	request  Request // reused

	mu sync.Mutex
	// leaving: the next read deadline is in the past.
	leaving bool
}

func newConn(s *Server, nc net.Conn) *conn {
	limits := wire.GreetingLimits()
	if s.config.Open {
		limits = s.config.Limits
	}
	return &conn{server: s, net: nc, in: wire.NewReader(nc, limits, s.codec), out: wire.NewWriter(nc, s.codec), loggedIn: s.config.Open,
		strange: time.Now(), client: Client{ID: s.lastID.Add(1), Remote: nc.RemoteAddr().String()}}
}

// errLeaving ends a connection's loop at a drain.
var errLeaving = errors.New("server is draining")

// loop serves until the client leaves, breaks the protocol or takes too long.
func (c *conn) loop(ctx context.Context) error {
	for {
		if err := c.readBy(c.idleDeadline()); err != nil {
			return err
		}
		whole, err := c.in.Await()
		if err == nil && !whole {
			err = c.readBy(c.messageDeadline())
		}
		if err != nil {
			return err
		}
		m, err := c.in.Read()
		if err != nil {
			return err
		}
		if err := c.serve(ctx, &m); err != nil {
			return err
		}
	}
}

func (c *conn) idleDeadline() time.Time {
	if !c.loggedIn {
		return c.strange.Add(c.server.config.GreetingTimeout)
	}
	return time.Now().Add(c.server.config.IdleTimeout)
}

func (c *conn) messageDeadline() time.Time {
	if !c.loggedIn {
		return c.strange.Add(c.server.config.GreetingTimeout)
	}
	return time.Now().Add(c.server.config.MessageTimeout)
}

// readBy sets the read deadline unless the connection is to end.
func (c *conn) readBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return errLeaving
	}
	return c.net.SetReadDeadline(t)
}

// leave ends the connection: now when it is reading, after its reply when it is not.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	_ = c.net.SetReadDeadline(time.Unix(1, 0)) // it fails on a closed connection only
}

func (c *conn) serve(ctx context.Context, m *wire.Message) error {
	s := c.server
	s.requests.Add(1)
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	if m.Op == wire.OpQuery {
		return c.serveLegacy(m)
	}
	if m.Op != wire.OpMsg {
		return &wire.FormatError{What: "a reply, expected a request", Offset: 12}
	}
	command := c.command(m.Body)
	if m.Compressor != wire.Uncompressed && !wire.Compressible(command) {
		return &wire.FormatError{What: command + " must not be compressed", Offset: 12}
	}
	reply, err := c.answer(ctx, m, command)
	if reply.Release != nil {
		defer reply.Release()
	}
	if err != nil {
		s.failed.Add(1)
		reply.Body = c.failure(command, err).Document()
	}
	if m.Flags&wire.MoreToCome != 0 {
		return nil // nobody waits; what failed was counted
	}
	return c.write(&wire.Message{Op: wire.OpMsg, ResponseTo: m.RequestID, Body: reply.Body, Compressor: m.Compressor,
		Flags: m.Flags & wire.ChecksumPresent})
}

// command is the body's first field, without an allocation for what is known.
func (c *conn) command(body bson.Raw) string {
	element, _, ok := bsoncore.ReadElement(body[4:])
	if !ok {
		return ""
	}
	key := element.KeyBytes()
	if name, known := c.server.names[string(key)]; known {
		return name
	}
	return string(key)
}

func (c *conn) answer(ctx context.Context, m *wire.Message, command string) (Reply, error) {
	last := c.request.DB
	c.request = Request{Client: c.client, Command: command, Sequences: m.Sequences, NoReply: m.Flags&wire.MoreToCome != 0}
	if err := c.request.read(m.Body, last); err != nil {
		return Reply{}, err
	}
	if body, local, err := c.local(&c.request); local {
		return Reply{Body: body}, err
	}
	if !c.loggedIn {
		return Reply{}, &wire.CommandError{Code: wire.CodeUnauthorized, Name: "Unauthorized", Message: "Command " + command + " requires authentication"}
	}
	reply, err := c.server.handler.Handle(ctx, &c.request)
	if err == nil {
		err = sendable(reply.Body)
	}
	return reply, err
}

// sendable keeps a handler's mistake from ending the connection without a word.
func sendable(body bson.Raw) error {
	const frame = wire.HeaderBytes + 4 + 1 + 4
	if len(body) < 5 || len(body)+frame > wire.MaxMessageBytes {
		return fmt.Errorf("reply of %d bytes can't be sent", len(body))
	}
	return nil
}

// failure is what the client is told of an error.
func (c *conn) failure(command string, err error) *wire.CommandError {
	var told *wire.CommandError
	switch {
	case errors.As(err, &told):
		return told
	case errors.Is(err, context.Canceled):
		e := &wire.CommandError{Code: wire.CodeShutdownInProgress, Name: "ShutdownInProgress", Message: "the proxy is leaving: " + err.Error()}
		if c.request.Session.Retryable {
			e.Labels = []string{"RetryableWriteError"}
		}
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &wire.CommandError{Code: wire.CodeMaxTimeMSExpired, Name: "MaxTimeMSExpired", Message: "operation exceeded time limit: " + err.Error()}
	}
	c.server.log.Warn("command failed", "command", command, "client", c.client.Remote, "error", err)
	return &wire.CommandError{Code: wire.CodeInternalError, Name: "InternalError", Message: err.Error()}
}

func (c *conn) write(m *wire.Message) error {
	c.sent++
	m.RequestID = c.sent
	if err := c.net.SetWriteDeadline(time.Now().Add(c.server.config.WriteTimeout)); err != nil {
		return err
	}
	return c.out.Write(m)
}
