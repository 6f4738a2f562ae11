package ovh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"popfleet/provision/provider"
)

const maxPause = 15 * time.Second

// call sends r until it succeeds, fails for good, or the budget is spent. What must not be repeated once it may have
// taken effect comes back at the first ambiguous failure, and the caller looks before it goes on. Each try has its own
// deadline, so an API that hangs costs one try.
func (d *Driver) call(ctx context.Context, op string, r request) error {
	start, pause := time.Now(), d.opts.Backoff
	for try := 1; ; try++ {
		err := d.try(ctx, r)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return explain(op, r, context.Cause(ctx))
		}
		v := judge(err)
		if !v.retry || r.money || (v.ambiguous && !r.repeatable()) {
			return explain(op, r, err)
		}
		wait := max(pause, v.after)
		spent := time.Since(start)
		if spent+wait > d.opts.Budget {
			return overBudget(op, v, try, spent, err)
		}
		say(ctx, "%s: %s; try %d in %s", op, v.reason, try+1, wait.Round(100*time.Millisecond))
		d.opts.Log.DebugContext(ctx, "retry", "op", op, "call", r.String(), "reason", v.reason, "try", try, "pause", wait)
		if err := sleep(ctx, jitter(wait)); err != nil {
			return explain(op, r, err)
		}
		pause = min(pause*8/5, maxPause)
	}
}

func overBudget(op string, v verdict, try int, spent time.Duration, err error) error {
	kind := provider.ErrBudget
	if statusOf(err) == 429 {
		kind = provider.ErrRateLimited
	}
	return &Error{Op: op, Kind: kind, Hint: "run the same command again to go on",
		Err: fmt.Errorf("%s, %d tries in %s: %w", v.reason, try, spent.Round(time.Second), err)}
}

// try sends r once, and once more when the signature was refused and OVH's time had to be asked for again.
func (d *Driver) try(ctx context.Context, r request) error {
	round := d.clock.round()
	err := d.tryOnce(ctx, r)
	var api *apiError
	if !errors.As(err, &api) || !api.signature() || (round == 0 && !api.late()) {
		return err // with round 0 the time had just been asked for
	}
	say(ctx, "OVH refuses the signature (%s): asking for its time again", api.message)
	if err := d.refreshClock(ctx, max(round, 1)); err != nil {
		return err
	}
	return d.tryOnce(ctx, r)
}

func (d *Driver) refreshClock(ctx context.Context, round int) error {
	ctx, cancel := d.deadline(ctx)
	defer cancel()
	return d.clock.refresh(ctx, round, d.serverTime)
}

func (d *Driver) tryOnce(ctx context.Context, r request) error {
	ctx, cancel := d.deadline(ctx)
	defer cancel()
	return d.exchange(ctx, r)
}

func (d *Driver) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d.opts.CallTimeout,
		fmt.Errorf("no answer in %s: %w", d.opts.CallTimeout, context.DeadlineExceeded))
}

// jitter spreads a pause over ±25 %, so that nodes that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// get reads path into out.
func (d *Driver) get(ctx context.Context, op, path string, out any) error {
	return d.call(ctx, op, request{method: "GET", path: path, out: out})
}
