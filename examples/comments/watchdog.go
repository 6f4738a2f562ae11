package comments

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	pingInterval = 2 * time.Second
	retryFast    = 250 * time.Millisecond // while the store is away
)

// storage is what the watchdog asks; both calls bound themselves.
type storage interface {
	Ping(ctx context.Context) error
	Prepare(ctx context.Context) error
}

// watchdog knows whether the store answers, and creates the indexes as soon as it does.
type watchdog struct {
	store storage
	log   *slog.Logger

	mu       sync.Mutex
	prepared bool
	err      error
}

var errNotAsked = errors.New("store: not asked yet")

func newWatchdog(store storage, log *slog.Logger) *watchdog {
	return &watchdog{store: store, log: log, err: errNotAsked}
}

// problem is nil while the store is well.
func (d *watchdog) problem() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// run asks until ctx ends.
func (d *watchdog) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := pingInterval
		if err := d.ask(ctx); err != nil {
			wait = retryFast
		}
		timer.Reset(wait)
	}
}

// ask pings, or prepares when that was not done yet. A store that came back may be another, an empty one: so after
// every failure the indexes are looked at again, which costs nothing when they are there.
func (d *watchdog) ask(ctx context.Context) error {
	d.mu.Lock()
	prepared, before := d.prepared, d.err
	d.mu.Unlock()
	act := d.store.Ping
	if !prepared {
		act = d.store.Prepare
	}
	err := act(ctx)
	if ctx.Err() != nil {
		return err
	}
	d.mu.Lock()
	d.prepared, d.err = err == nil, err
	d.mu.Unlock()
	switch {
	case err != nil && (before == nil || errors.Is(before, errNotAsked)):
		d.log.Warn("store is away", "error", err)
	case err == nil && before != nil:
		d.log.Info("store answers")
	}
	return err
}
