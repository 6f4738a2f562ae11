package hetznerrobot

import (
	"context"
	"fmt"
	"sync"
	"time"

	"popfleet/provision/provider"
)

// class is a group of endpoints that Robot counts together. Its documentation gives a limit per endpoint; whether a read
// and a write of one path share it is not said, so they do here.
type class string

const (
	classServer class = "server"
	classBoot   class = "boot"
	classLook   class = "reset options"
	classReset  class = "reset"
	classKey    class = "key"
	classRDNS   class = "reverse dns"
	classOrder  class = "order"
	classBuy    class = "order placement"
)

// perHour are the limits as of the Robot documentation; placing orders, tests among them, is counted by the day.
var perHour = map[class]int{classServer: 200, classBoot: 500, classLook: 500, classReset: 50, classKey: 200,
	classRDNS: 500, classOrder: 500}

const buysPerDay = 20

func newLimits(hour time.Duration) map[class]*limiter {
	all := map[class]*limiter{classBuy: {limit: buysPerDay, window: 24 * hour}}
	for c, n := range perHour {
		all[c] = &limiter{limit: n, window: hour, slow: n / 10}
	}
	return all
}

// limiter lets through at most limit calls in any window: what Robot counts, it counts too, so that 403 stays the answer
// to somebody else's calls. The last tenth is handed out slowly, so that a run does not stand still for an hour.
type limiter struct {
	limit  int
	window time.Duration
	slow   int // how many of the last are handed out slowly

	mu      sync.Mutex
	at      []time.Time // calls let through inside the window, and those that wait for their time
	blocked time.Time   // Robot said so
}

// reserve books a call and returns when it may be made.
func (l *limiter) reserve(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
	at := now
	if l.blocked.After(at) {
		at = l.blocked
	}
	if n := len(l.at); n > 0 {
		last := l.at[n-1]
		if l.limit-n <= l.slow {
			last = last.Add(l.window / time.Duration(l.limit))
		}
		if last.After(at) {
			at = last
		}
	}
	if n := len(l.at); n >= l.limit {
		if free := l.at[n-l.limit].Add(l.window); free.After(at) {
			at = free
		}
	}
	l.at = append(l.at, at)
	return at
}

func (l *limiter) prune(now time.Time) {
	for len(l.at) > 0 && !l.at[0].Add(l.window).After(now) {
		l.at = l.at[1:]
	}
}

// giveBack undoes a reservation that was not used.
func (l *limiter) giveBack(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.at) - 1; i >= 0; i-- {
		if l.at[i].Equal(at) {
			l.at = append(l.at[:i], l.at[i+1:]...)
			return
		}
	}
}

// block holds every call of the class until then.
func (l *limiter) block(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.blocked) {
		l.blocked = until
	}
}

// left is how many calls the window still has room for.
func (l *limiter) left(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
	return max(0, l.limit-len(l.at))
}

// take waits, aloud, for a call's turn. It does not begin a wait that the caller's deadline would cut, nor one for
// tomorrow.
func (d *Driver) take(ctx context.Context, op string, c class) error {
	l, now := d.limits[c], time.Now()
	at := l.reserve(now)
	wait := at.Sub(now)
	if wait <= 0 {
		return nil
	}
	if end, ok := ctx.Deadline(); ok && end.Before(at) || wait > 2*d.opts.Hour {
		l.giveBack(at)
		return limitError(op, c, wait, nil)
	}
	if wait >= time.Second {
		say(ctx, "%s: Robot's limit for %s calls (%d in %s) is nearly used up; waiting %s", op, c, l.limit, l.window,
			wait.Round(time.Second))
	}
	if err := sleep(ctx, wait); err != nil {
		l.giveBack(at)
		return explain(op, err)
	}
	return nil
}

func limitError(op string, c class, wait time.Duration, cause error) error {
	if cause == nil {
		cause = fmt.Errorf("%s calls", c)
	}
	return &provider.Error{Op: op, Kind: provider.ErrRateLimited, Err: cause,
		Hint: fmt.Sprintf("run the same command again in %s; whatever else uses this webservice user counts too", wait.Round(time.Second))}
}
