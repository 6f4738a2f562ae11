package lab

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"popfleet/lab/machine"
	"popfleet/lab/socks"
)

const (
	forwardPort    = 443
	forwardTimeout = 5 * time.Second
)

// forward leads each connection to a machine that accepts on port 443, in turn, so that a browser on the host can look
// at the fleet's application without a proxy.
func (d *daemon) forward(ctx context.Context, l net.Listener) error {
	var work sync.WaitGroup
	defer work.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var turn atomic.Uint64
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("forward: accept: %w", err)
		}
		work.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			to := d.anyServing(ctx, int(turn.Add(1)))
			if to == nil {
				return
			}
			defer to.Close()
			socks.Relay(ctx, c, to)
		})
	}
}

// anyServing connects to the first machine that accepts, beginning with a different one every time; nil when none does.
func (d *daemon) anyServing(ctx context.Context, from int) net.Conn {
	var on []machine.Info
	for _, i := range d.servers() {
		if i.Machine != nil && i.Machine.Running() {
			on = append(on, i)
		}
	}
	for k := range on {
		dctx, cancel := context.WithTimeout(ctx, forwardTimeout)
		c, err := on[(from+k)%len(on)].Machine.Dial(dctx, forwardPort)
		cancel()
		if err == nil {
			return c
		}
	}
	return nil
}
