package lifecycle

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// link is the one connection a node's run keeps, with the exchange on it. It serves every operation until the machine
// restarts: a second operation costs one round trip, not ten.
type link struct {
	conn *remote.Conn
	x    *remote.Exchange
}

// Deadlines at the pace of a real machine. A handshake is CPU work on the far side.
const (
	connectTimeout = 20 * time.Second
	callTimeout    = 30 * time.Second
	lookTimeout    = 10 * time.Second
)

// connect logs in on port 22 and starts the exchange; an older link is dropped.
func (n *node) connect(ctx context.Context, addr string, trust remote.Trust, id ssh.Signer) error {
	return n.connectWhile(ctx, ctx, addr, trust, id)
}

// connectWhile bounds by patience only what depends on the machine: whether it answers. Shipping the agent depends on our
// uplink, which hundreds of machines may share, and must not make a machine that answers look dead.
func (n *node) connectWhile(ctx, patience context.Context, addr string, trust remote.Trust, id ssh.Signer) error {
	n.drop()
	c, err := remote.Connect(patience, n.Dial, remote.Target{
		Addr: addr, Trust: trust, Auth: id, Timeout: n.Pace.Of(connectTimeout),
		Keepalive: remote.Keepalive{Every: 10 * time.Second, DeadAfter: n.Pace.Of(30 * time.Second)},
	})
	if err != nil {
		return err
	}
	x, err := n.startAgent(ctx, c)
	if err != nil {
		c.Close()
		return err
	}
	n.link = &link{conn: c, x: x}
	n.pass.arrive(n.want.Node, c, addr)
	return nil
}

// startAgent gives up once nothing moves, however long the whole takes.
func (n *node) startAgent(ctx context.Context, c *remote.Conn) (*remote.Exchange, error) {
	still := max(20*time.Second, n.Pace.Of(time.Minute))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(still, func() { cancel(fmt.Errorf("nothing moved for %s", still)) })
	defer stalled.Stop()
	return c.Exchange(ctx, n.Agent, func(e spec.Event) {
		stalled.Reset(still)
		n.hear(e)
	})
}

// drop forgets the connection, as before a restart.
func (n *node) drop() {
	if n.link == nil {
		return
	}
	n.pass.leave(n.name)
	n.tail = n.link.x.Tail()
	n.link.x.Close()
	n.link.conn.Close()
	n.link = nil
}

// retire ends the node's run. A link that may still serve others is left to passOn.
func (n *node) retire() {
	if n.pass.done(n.want.Node, n.link) {
		n.link = nil
	}
	n.drop()
}

// call sends one request over the kept link. A link that breaks is dropped.
func (n *node) call(ctx context.Context, c remote.Call) (err error) {
	if c.Events == nil {
		c.Events = n.hear
	}
	if n.link == nil {
		return fmt.Errorf("%s: the connection was lost", c.Op)
	}
	if c.Blobs != nil {
		peers := n.receiver(c)
		c.Peers, c.Packs = peers, &n.pass.packs
		defer func() { peers.end(err) }()
	}
	err = n.link.x.Do(ctx, c)
	if err != nil {
		n.tail = n.link.x.Tail()
		if !isReported(err) {
			n.drop()
		}
	}
	return err
}

// facts asks the machine what it is.
func (n *node) facts(ctx context.Context) (spec.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, n.Pace.Of(callTimeout))
	defer cancel()
	var f spec.Facts
	err := n.call(ctx, remote.Call{Op: spec.OpFacts, Result: &f})
	return f, err
}

func (n *node) look(ctx context.Context, addr string) remote.Door {
	ctx, cancel := context.WithTimeout(ctx, n.Pace.Of(lookTimeout))
	defer cancel()
	return remote.Look(ctx, n.Dial, addr)
}

func (n *node) sshAddr(s provider.Server) string    { return portOf(s, n.Ports.SSH) }
func (n *node) unlockAddr(s provider.Server) string { return portOf(s, n.Ports.Unlock) }
