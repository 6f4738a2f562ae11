package hetznerrobot

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"popfleet/provision/provider"
)

const maxPause = 15 * time.Second

// call sends r until it succeeds, fails for good, or the budget is spent. r must be safe to repeat after a lost reply.
func (d *Driver) call(ctx context.Context, op string, r request, out any) error {
	return d.retry(ctx, op, r, out, true)
}

// callOnce is call for what must not be sent again once it may have taken effect: a second reset boots past a one-shot
// rescue, a second order costs money. Such a failure comes back at once, and the caller looks before it goes on.
func (d *Driver) callOnce(ctx context.Context, op string, r request, out any) error {
	return d.retry(ctx, op, r, out, false)
}

func (d *Driver) retry(ctx context.Context, op string, r request, out any, repeatable bool) error {
	t := &tries{op: op, class: r.class, start: time.Now(), pause: d.opts.Backoff}
	for {
		if err := d.turn(ctx, op, r.class); err != nil {
			return err
		}
		t.count++
		err := d.try(ctx, r, out)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return explain(op, context.Cause(ctx))
		}
		v := judge(err)
		if !v.retry || !v.unsent && !repeatable {
			return explain(op, err)
		}
		if v.limited {
			err = d.waitLimit(ctx, t, err)
		} else {
			err = d.waitRetry(ctx, t, v, err)
		}
		if err != nil {
			return err
		}
	}
}

// turn waits until the limits let a call through. A driver whose login was refused does not get that far.
func (d *Driver) turn(ctx context.Context, op string, c class) error {
	if _, refused := d.client.state(); refused != nil {
		return refused
	}
	return d.take(ctx, op, c)
}

func (d *Driver) try(ctx context.Context, r request, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.opts.CallTimeout,
		fmt.Errorf("no answer in %s: %w", d.opts.CallTimeout, context.DeadlineExceeded))
	defer cancel()
	return d.client.do(ctx, r, out)
}

// tries is the state of one call's repetitions.
type tries struct {
	op      string
	class   class
	count   int
	start   time.Time
	pause   time.Duration
	limited time.Duration // waited for Robot's limit, which is no fault of the call
}

func (d *Driver) waitRetry(ctx context.Context, t *tries, v verdict, err error) error {
	spent := time.Since(t.start) - t.limited
	if spent+t.pause > d.opts.Budget {
		return &provider.Error{Op: t.op, Kind: provider.ErrBudget, Hint: "run the same command again to go on",
			Err: fmt.Errorf("%s, %d tries in %s: %w", v.reason, t.count, spent.Round(time.Second), err)}
	}
	say(ctx, "%s: %s; try %d in %s", t.op, v.reason, t.count+1, t.pause.Round(100*time.Millisecond))
	d.opts.Log.DebugContext(ctx, "retry", "op", t.op, "reason", v.reason, "try", t.count, "pause", t.pause)
	if err := sleep(ctx, jitter(t.pause)); err != nil {
		return explain(t.op, err)
	}
	t.pause = min(t.pause*8/5, maxPause)
	return nil
}

// waitLimit waits out a limit that Robot counts differently than we do: others use the account too. How long is not said,
// only by which interval it counts, so the whole class holds for a twelfth of it at a time, an interval in all.
func (d *Driver) waitLimit(ctx context.Context, t *tries, err error) error {
	interval := time.Hour
	var r *refusal
	if errors.As(err, &r) && r.Interval > 0 {
		interval = r.Interval
	}
	pause := max(interval/12, time.Second)
	end, bounded := ctx.Deadline()
	if t.limited >= interval || bounded && time.Until(end) < pause {
		return limitError(t.op, t.class, interval, err)
	}
	say(ctx, "%s: Robot's limit for %s calls is used up (%v); waiting %s of up to %s", t.op, t.class, err, pause, interval)
	d.opts.Log.WarnContext(ctx, "robot limit", "op", t.op, "class", string(t.class), "pause", pause)
	d.limits[t.class].block(time.Now().Add(pause))
	t.limited += pause
	if err := sleep(ctx, pause); err != nil {
		return explain(t.op, err)
	}
	return nil
}

// jitter spreads a pause over ±25 %, so that nodes that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
