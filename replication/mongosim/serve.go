package mongosim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/mongosim/codec"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/wire"
)

// connections are those that are open.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func (c *connections) add(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = struct{}{}
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// Serve answers on l until ctx ends or l is closed, and returns when every connection has ended. hello names l's address
// as this member's.
func (b *Backend) Serve(ctx context.Context, l net.Listener) error {
	codec, err := wire.NewCodec()
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.address = l.Addr().String()
	b.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close(); b.conns.cut() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			b.conns.cut()
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept a connection: %w", err)
		}
		b.conns.add(conn)
		wg.Go(func() {
			defer b.conns.remove(conn)
			defer conn.Close()
			b.talk(ctx, conn, codec)
		})
	}
}

// talk answers one connection's messages in their order.
func (b *Backend) talk(ctx context.Context, conn net.Conn, codec *wire.Codec) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out := wire.NewReader(conn, wire.DefaultLimits(), codec), wire.NewWriter(conn, codec)
	in.Allow(wire.Compressors()...)
	for ctx.Err() == nil && !b.isDown() {
		m, err := in.Read()
		if err != nil {
			if bad := new(wire.FormatError); errors.As(err, &bad) {
				b.log.Warn("malformed message", "from", conn.RemoteAddr().String(), "error", err)
			}
			return
		}
		reply, err := b.reply(ctx, &m)
		if errors.Is(err, fault.ErrSilence) {
			io.Copy(io.Discard, conn) // until the client gives up
			return
		}
		if err != nil {
			return
		}
		if m.Flags&wire.MoreToCome != 0 {
			continue
		}
		if err := out.Write(reply); err != nil {
			return
		}
	}
}

// reply does the command in m. An error means that no answer goes back and the connection ends.
func (b *Backend) reply(ctx context.Context, m *wire.Message) (*wire.Message, error) {
	answer := &wire.Message{Op: wire.OpMsg, ResponseTo: m.RequestID, Compressor: m.Compressor}
	raw := m.Merged()
	db, _ := raw.Lookup("$db").StringValueOK()
	if m.Op == wire.OpQuery {
		answer.Op, answer.Reply = wire.OpReply, &wire.Reply{Flags: wire.AwaitCapable}
		db = "admin"
	}
	d, err := b.run(ctx, db, raw)
	failed := new(wire.CommandError)
	switch {
	case errors.As(err, &failed):
		answer.Body = failed.Document()
	case err != nil:
		return nil, err
	default:
		if answer.Body, err = codec.Encode(d); err != nil {
			return nil, err
		}
	}
	if answer.Reply != nil {
		answer.Reply.Documents = []bson.Raw{answer.Body}
	}
	return answer, nil
}
