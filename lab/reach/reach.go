// Package reach is how the world outside reaches the lab's machines: by address and port, through whatever network
// fault is set for them. It is the one place where refused, silent, half-open and cut connections and impostors are
// made, so they are the same for QEMU machines and scripted ones.
package reach

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/impostor"
	"popfleet/lab/wire"
)

// Dialer connects to a TCP port of one host.
type Dialer interface {
	Dial(ctx context.Context, port uint16) (net.Conn, error)
}

// Find looks a host up by address: how to reach it and every name that faults know it by.
type Find func(netip.Addr) (d Dialer, names []string, ok bool)

// Net is the lab's network seen from outside.
type Net struct {
	find     Find
	faults   *faults.Set
	impostor *impostor.Impostor

	mu     sync.Mutex
	routes map[netip.Addr]Dialer // guarded by mu
	held   map[net.Conn]bool     // guarded by mu: far ends of half-open connections
	closed bool                  // guarded by mu
	work   sync.WaitGroup
}

// New returns a network. imp answers where an impostor fault strikes.
func New(find Find, set *faults.Set, imp *impostor.Impostor) *Net {
	return &Net{find: find, faults: set, impostor: imp, routes: map[netip.Addr]Dialer{}, held: map[net.Conn]bool{}}
}

// Route makes an address reachable that is no machine's: the controller's, the lab's own.
func (n *Net) Route(a netip.Addr, d Dialer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.routes[a] = d
}

// Close breaks what the network itself holds and waits for it.
func (n *Net) Close() {
	n.mu.Lock()
	n.closed = true
	for c := range n.held {
		wire.Cut(c)
	}
	n.mu.Unlock()
	n.work.Wait()
}

// DialAddr connects to a machine or a routed address. EHOSTUNREACH: nobody has the address.
func (n *Net) DialAddr(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	routed := n.routes[to.Addr()]
	n.mu.Unlock()
	if routed != nil {
		return routed.Dial(ctx, to.Port())
	}
	d, names, ok := n.find(to.Addr())
	if !ok {
		return nil, fmt.Errorf("%s: %w", to, syscall.EHOSTUNREACH)
	}
	f, struck := n.faults.Take(faults.Occasion{Layer: faults.Net, Machine: names, Port: to.Port()})
	if !struck {
		return d.Dial(ctx, to.Port())
	}
	return n.strike(ctx, f, d, to.Port())
}

func (n *Net) strike(ctx context.Context, f faults.Fault, d Dialer, port uint16) (net.Conn, error) {
	if err := wait(ctx, f.Delay.D()); err != nil {
		return nil, err
	}
	switch f.Kind {
	case faults.Refuse:
		return nil, syscall.ECONNREFUSED
	case faults.Silent:
		<-ctx.Done()
		return nil, syscall.ETIMEDOUT
	case faults.HalfOpen:
		return n.hold(func(net.Conn) {})
	case faults.Impostor:
		return n.play(n.impostor.Serve)
	case faults.Cut:
		c, err := d.Dial(ctx, port)
		if err != nil {
			return nil, err
		}
		return &cutConn{Conn: c, left: f.Bytes}, nil
	}
	return d.Dial(ctx, port)
}

// hold gives a connection whose far end is kept open and silent until the network closes.
func (n *Net) hold(use func(net.Conn)) (net.Conn, error) {
	near, far := wire.Pipe(0, addr("outside"), addr("lab"))
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, syscall.EHOSTUNREACH
	}
	n.held[far] = true
	use(far)
	return near, nil
}

// play gives a connection whose far end is served.
func (n *Net) play(serve func(net.Conn)) (net.Conn, error) {
	return n.hold(func(far net.Conn) {
		n.work.Go(func() {
			serve(far)
			n.mu.Lock()
			defer n.mu.Unlock()
			delete(n.held, far)
		})
	})
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// cutConn breaks once it has carried so many bytes from the machine.
type cutConn struct {
	net.Conn
	left int64
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		wire.Cut(c.Conn)
		return 0, syscall.ECONNRESET
	}
	k, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(k)
	return k, err
}

type addr string

func (a addr) Network() string { return "lab" }
func (a addr) String() string  { return string(a) }
