package hetznercloud

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"popfleet/provision/provider"
)

const maxPause = 15 * time.Second

// call runs f until it succeeds, fails for good, or the budget is spent. f must be safe to repeat after a reply was
// lost. Each try has its own deadline, so an API that hangs costs one try.
func (d *Driver) call(ctx context.Context, op string, f func(context.Context) error) error {
	return d.retry(ctx, op, true, f)
}

// callOnce is call for what must not be repeated once it may have taken effect: a second reset would boot past a
// one-shot rescue. An ambiguous failure comes back at once, and the caller looks before it goes on.
func (d *Driver) callOnce(ctx context.Context, op string, f func(context.Context) error) error {
	return d.retry(ctx, op, false, f)
}

func (d *Driver) retry(ctx context.Context, op string, repeatable bool, f func(context.Context) error) error {
	start, pause := time.Now(), d.opts.Backoff
	for try := 1; ; try++ {
		err := d.try(ctx, f)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return explain(op, context.Cause(ctx))
		}
		v := judge(err)
		if !v.retry || (v.ambiguous && !repeatable) {
			return explain(op, err)
		}
		spent := time.Since(start)
		if spent+pause > d.opts.Budget {
			return &Error{Op: op, Kind: provider.ErrBudget, Hint: "run the same command again to go on",
				Err: fmt.Errorf("%s, %d tries in %s: %w", v.reason, try, spent.Round(time.Second), err)}
		}
		say(ctx, "%s: %s; try %d in %s", op, v.reason, try+1, pause.Round(100*time.Millisecond))
		d.opts.Log.DebugContext(ctx, "retry", "op", op, "reason", v.reason, "try", try, "pause", pause)
		if err := sleep(ctx, jitter(pause)); err != nil {
			return explain(op, err)
		}
		pause = min(pause*8/5, maxPause)
	}
}

func (d *Driver) try(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.opts.CallTimeout,
		fmt.Errorf("no answer in %s: %w", d.opts.CallTimeout, context.DeadlineExceeded))
	defer cancel()
	return f(ctx)
}

// jitter spreads a pause over ±25 %, so that nodes that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// mayHaveHappened says whether a failed call may have taken effect all the same.
func mayHaveHappened(err error) bool {
	if errors.Is(err, provider.ErrBudget) {
		return false // it was repeated enough
	}
	return judge(err).ambiguous || errors.Is(err, provider.ErrActionGone)
}
