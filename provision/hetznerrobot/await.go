package hetznerrobot

import (
	"context"
	"fmt"
	"sync"
	"time"

	"popfleet/provision/provider"
)

// awaitBoot looks for a rescue system that started after we began, and for its host keys.
func (e *entry) awaitBoot(ctx context.Context, rung rung, patience time.Duration) (provider.Rescue, error) {
	start := time.Now()
	var booted time.Time // when its start was first seen, without keys
	e.boots.enter()
	defer e.boots.leave()
	say(ctx, "%s: waiting for the rescue system to start after %s", e.op, rung.name)
	for {
		if err := sleep(ctx, e.nextLook(time.Since(start))); err != nil {
			return provider.Rescue{}, &provider.Error{Op: e.op, Kind: provider.ErrTimeout, Hint: "run the same command again to go on",
				Err: fmt.Errorf("no rescue system %s after %s: %w", time.Since(start).Round(time.Second), rung.name, err)}
		}
		last, err := e.lastRescue(ctx, e.op, e.number)
		if err != nil {
			return provider.Rescue{}, err
		}
		if last.BootTime != "" && last.BootTime != e.before {
			found, done, err := e.judgeBoot(ctx, last)
			if done && err == nil && time.Since(start) < e.opts.Pace.Of(soonest) && e.stillArmed(ctx) {
				e.before = last.BootTime
				continue
			}
			if done || err != nil {
				return found, err
			}
			if booted.IsZero() {
				booted = time.Now()
				say(ctx, "%s: the rescue system has started; waiting for its host keys", e.op)
			}
			if time.Since(booted) > e.opts.Pace.Of(keysPatience) {
				e.before = last.BootTime
				return provider.Rescue{}, fmt.Errorf("%w: Robot published no host keys of the rescue system of %s", errNext, last.BootTime)
			}
			continue
		}
		if spent := time.Since(start); spent > patience {
			return provider.Rescue{}, fmt.Errorf("%w: no new rescue system %s after %s", errNext, spent.Round(time.Second), rung.name)
		}
	}
}

// soonest is less than any machine takes from the button to its rescue system. What shows itself sooner may be a boot that
// an earlier run began: it used up that run's activation, and ours is still armed.
const soonest = 20 * time.Second

// stillArmed says that no start has used our activation up. Where Robot can't say, what was seen is believed: a host key
// that does not fit stops the run anyway.
func (e *entry) stillArmed(ctx context.Context) bool {
	state, err := e.rescueState(ctx, e.op, e.number)
	return err == nil && state.Active && holds(state.Authorized, e.key)
}

// judgeBoot reads a start that is new to us. Host keys that cannot be compared are no host keys.
func (e *entry) judgeBoot(ctx context.Context, last rescueState) (provider.Rescue, bool, error) {
	if len(last.Authorized) > 0 && !holds(last.Authorized, e.key) {
		return provider.Rescue{}, false, &provider.Error{Op: e.op, Kind: provider.ErrNoRescue,
			Err:  fmt.Errorf("the rescue system that started at %s lets in keys that are not ours", printable(string(last.BootTime), 30)),
			Hint: "somebody else armed rescue on this server meanwhile: find out who before going on"}
	}
	keys := fingerprints(last.Hosts)
	if len(keys) == 0 {
		return provider.Rescue{}, false, nil
	}
	out := provider.Rescue{Origin: provider.FromAPI, Fingerprints: keys}
	at, err := parseTime(string(last.BootTime), e.zone)
	if err != nil { // it is new all the same: only what it says to people is lost
		e.opts.Log.WarnContext(ctx, "boot time of rescue", "server", e.number, "error", err)
	}
	out.Booted = at
	return out, true, nil
}

// bootClock spreads the looks of all nodes over the account's limit.
type bootClock struct {
	mu      sync.Mutex
	waiting int           // nodes that wait for a boot now
	fastest time.Duration // of the boots seen so far; 0: none
}

func (b *bootClock) enter() { b.add(1) }
func (b *bootClock) leave() { b.add(-1) }

func (b *bootClock) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting += n
}

// learn notes how long a boot took from the button to its keys.
func (b *bootClock) learn(took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fastest == 0 || took < b.fastest {
		b.fastest = took
	}
}

func (b *bootClock) state() (waiting int, fastest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(1, b.waiting), b.fastest
}

// How long a usual boot takes, in looks: 75 to 90 s of 5 s each.
const (
	firstLooks = 15
	usualLooks = 18
)

// nextLook is the pause before the next look at a boot that began spent ago. Boots of one fleet take about the same time,
// so the first look comes shortly before the fastest seen; after that every Poll, later every second one. Where many wait
// on few calls, none is spent on machines that are still in their firmware: the first look comes when a usual boot is about
// done, and after it each machine has its share of half of what is left.
func (e *entry) nextLook(spent time.Duration) time.Duration {
	poll := e.opts.Poll
	waiting, fastest := e.boots.state()
	if early := fastest * 9 / 10; spent == 0 && early > poll {
		return early
	}
	share := e.limits[classBoot].left(time.Now()) / 2 / waiting
	switch {
	case share >= usualLooks && spent > 24*poll: // two minutes
		return 2 * poll
	case share >= usualLooks:
		return poll
	case spent == 0 && share >= 2:
		return firstLooks * poll
	case spent == 0:
		return usualLooks * poll
	}
	return max(poll, 6*poll/time.Duration(max(1, share)))
}
