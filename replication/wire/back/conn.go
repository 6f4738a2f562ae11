package back

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// conn is one connection. Whoever took it from the pool is alone on it.
type conn struct {
	net     net.Conn
	in      *wire.Reader
	out     *wire.Writer
	with    wire.Compressor
	info    Info
	refused []string // fields of commands that are not sent
	lastID  int32
	spent   bool // to be closed
	scratch []byte

	// The pool's, under its lock.
	idleSince time.Time
	dead      bool
	waiting   []chan *conn // who needs this very connection
}

// open connects, greets and logs in.
func open(ctx context.Context, c Config, codec *wire.Codec) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.DialTimeout)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil, err
	}
	made := &conn{net: nc, in: wire.NewReader(nc, c.Limits, codec), out: wire.NewWriter(nc, codec)}
	if err := made.greet(ctx, c); err != nil {
		nc.Close()
		return nil, err
	}
	return made, nil
}

func (c *conn) greet(ctx context.Context, config Config) error {
	names := bson.A{}
	for _, known := range config.Compressors {
		names = append(names, known.String())
	}
	reply, err := c.run(ctx, bson.D{{Key: "hello", Value: int32(1)}, {Key: "compression", Value: names},
		{Key: "client", Value: bson.D{{Key: "application", Value: bson.D{{Key: "name", Value: config.Name}}},
			{Key: "driver", Value: bson.D{{Key: "name", Value: config.Name}, {Key: "version", Value: "1"}}},
			{Key: "os", Value: bson.D{{Key: "type", Value: "Linux"}}}}}, {Key: "$db", Value: "admin"}})
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	c.info = readInfo(reply)
	c.refused = append(c.info.refused(), config.Strip...)
	if config.Login != nil {
		if err := c.login(ctx, config.Login); err != nil {
			return fmt.Errorf("log in as %s: %w", config.Login.User, err)
		}
	}
	// Only now: what comes before must not be compressed.
	c.with = c.info.choose(config.Compressors)
	if c.with != wire.Uncompressed {
		c.in.Allow(c.with)
	}
	return nil
}

func (c *conn) login(ctx context.Context, l *Login) error {
	password, err := l.Password(ctx)
	if err != nil {
		return fmt.Errorf("read password: %w", err)
	}
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		return errors.New("password has characters that SASLprep forbids") // the cause would quote it
	}
	client, err := scram.SHA256.NewClientUnprepped(l.User, prepared, "")
	if err != nil {
		return err
	}
	conversation := client.NewConversation()
	text, err := conversation.Step("")
	if err != nil {
		return err
	}
	reply, err := c.run(ctx, bson.D{{Key: "saslStart", Value: int32(1)}, {Key: "mechanism", Value: "SCRAM-SHA-256"}, {Key: "payload", Value: []byte(text)},
		{Key: "options", Value: bson.D{{Key: "skipEmptyExchange", Value: true}}}, {Key: "$db", Value: "admin"}})
	for err == nil && !conversation.Done() {
		_, challenge, _ := reply.Lookup("payload").BinaryOK()
		if text, err = conversation.Step(string(challenge)); err != nil {
			return err
		}
		if done, _ := reply.Lookup("done").BooleanOK(); done {
			break
		}
		reply, err = c.run(ctx, bson.D{{Key: "saslContinue", Value: int32(1)}, {Key: "conversationId", Value: reply.Lookup("conversationId")},
			{Key: "payload", Value: []byte(text)}, {Key: "$db", Value: "admin"}})
	}
	if err == nil && !conversation.Valid() {
		return errors.New("the backend did not prove that it knows the user")
	}
	return err
}

// run is a command of our own, whose refusal is an error. The reply is valid until the next command.
func (c *conn) run(ctx context.Context, command bson.D) (bson.Raw, error) {
	body, err := bson.Marshal(command)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	until, _ := ctx.Deadline() // open set one
	reply, err := c.exchange(ctx, until, body, nil)
	if err != nil {
		return nil, err
	}
	return reply, wire.ReplyError(reply)
}

// exchange sends one command and waits for its reply, until ctx or the time ends. After an error, or an end that came
// with the reply, the connection is spent.
func (c *conn) exchange(ctx context.Context, until time.Time, body bson.Raw, sequences []wire.Sequence) (bson.Raw, error) {
	c.spent = true
	if err := c.net.SetDeadline(until); err != nil {
		return nil, &Error{Op: "send", Err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.net.SetDeadline(time.Unix(1, 0)) })
	reply, err := c.talk(body, sequences)
	c.spent = !stop() || err != nil
	return reply, why(ctx, err)
}

// why names the end that was set as the cause, where it is.
func why(ctx context.Context, err error) error {
	var e *Error
	var network net.Error
	if !errors.As(err, &e) {
		return err
	}
	if cause := ctx.Err(); cause != nil {
		e.Err = fmt.Errorf("%w: %w", cause, e.Err)
	} else if errors.As(err, &network) && network.Timeout() {
		e.Err = fmt.Errorf("%w: %w", context.DeadlineExceeded, e.Err)
	}
	return err
}

func (c *conn) talk(body bson.Raw, sequences []wire.Sequence) (bson.Raw, error) {
	c.lastID++
	m := wire.Message{Op: wire.OpMsg, RequestID: c.lastID, Body: body, Sequences: sequences, Compressor: c.with}
	if err := c.out.Write(&m); err != nil {
		var network net.Error
		return nil, &Error{Op: "send", Sent: errors.As(err, &network), Err: err}
	}
	reply, err := c.in.Read()
	if err != nil {
		return nil, &Error{Op: "receive", Sent: true, Err: err}
	}
	if reply.Op != wire.OpMsg || reply.ResponseTo != c.lastID || reply.Flags&wire.MoreToCome != 0 {
		return nil, &Error{Op: "receive", Sent: true, Err: fmt.Errorf("reply to %d with flags %#x, expected one to %d", reply.ResponseTo, reply.Flags, c.lastID)}
	}
	return reply.Merged(), nil
}
