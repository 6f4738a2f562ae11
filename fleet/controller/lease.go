package controller

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"popfleet/internal/runlock"
)

// leasePause is the time between two looks at a lease that is held.
const leasePause = 500 * time.Millisecond

// NodeLease keeps unlockers of one operator's folder apart, node by node: two at once would burn two of the machine's
// three tries. dir is the .fleet folder, command says who holds it. It waits until ctx ends. Commands give it to
// lifecycle.Deps.Lease; the lease ends with the process, however that ends.
func NodeLease(dir, command string) func(ctx context.Context, node string) (release func(), err error) {
	return func(ctx context.Context, node string) (func(), error) {
		for {
			release, err := tryLease(dir, node, command)
			if err == nil || !errors.As(err, new(*runlock.ErrHeld)) {
				return release, err
			}
			t := time.NewTimer(leasePause)
			select {
			case <-ctx.Done():
				t.Stop()
				return nil, errors.Join(err, context.Cause(ctx))
			case <-t.C:
			}
		}
	}
}

func tryLease(dir, node, command string) (release func(), err error) {
	l, err := runlock.Acquire(filepath.Join(dir, "unlock", node), runlock.Me(command))
	if err != nil {
		return nil, err
	}
	return func() { _ = l.Release() }, nil // the lock ends with its file descriptor, whatever the error
}
