package back

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// Command is what the backend is asked: a body with its $db, and sections. Both were walked (wire.CheckDocument, or
// because they came in a message), and stay untouched.
type Command struct {
	Body      bson.Raw
	Sequences []wire.Sequence
}

// Reply is the backend's answer. Body is valid until Release.
type Reply struct {
	Body bson.Raw

	memory wire.Memory
	home   *sync.Pool
}

// Err is the command's refusal, nil for ok: 1.
func (r *Reply) Err() error { return wire.ReplyError(r.Body) }

// Release gives the memory back. It may be called once, or never.
func (r *Reply) Release() {
	home := r.home
	r.Body, r.home = nil, nil
	if home != nil && r.memory.Small() {
		home.Put(r)
	}
}

// Do sends a command and waits for its reply. The error is an *Error or ErrClosed; a refusal by the backend is a reply.
func (p *Pool) Do(ctx context.Context, command Command) (*Reply, error) {
	if p.config.PinCursors {
		return p.doPinned(ctx, command)
	}
	reply, _, err := p.do(ctx, command, nil)
	return reply, err
}

// Run is Do for a command of the proxy's own, to which $db is added. A refusal is an error, a *wire.CommandError.
func (p *Pool) Run(ctx context.Context, db string, command bson.D) (*Reply, error) {
	body, err := bson.Marshal(append(command[:len(command):len(command)], bson.E{Key: "$db", Value: db}))
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	reply, err := p.Do(ctx, Command{Body: body})
	if err != nil {
		return nil, err
	}
	if err := reply.Err(); err != nil {
		reply.Release()
		return nil, err
	}
	return reply, nil
}

// do runs a command on any connection, or on the one that is given and was acquired.
func (p *Pool) do(ctx context.Context, command Command, on *conn) (*Reply, Info, error) {
	until := p.until(ctx)
	if on == nil {
		var err error
		if on, err = p.acquire(ctx, until); err != nil {
			return nil, Info{}, err
		}
	}
	on.idleSince = time.Time{}
	defer p.release(on)
	var body bson.Raw
	body, on.scratch = strip(on.scratch, command.Body, on.refused)
	raw, err := on.exchange(ctx, until, body, command.Sequences)
	if err != nil {
		return nil, Info{}, err
	}
	reply, pooled := p.memories.Get().(*Reply)
	if !pooled {
		reply = &Reply{}
	}
	reply.Body, reply.home = raw, &p.memories
	reply.memory = on.in.Swap(reply.memory)
	if p.config.PinCursors {
		p.note(on, command.Body, raw)
	}
	return reply, on.info, nil
}
