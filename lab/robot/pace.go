package robot

import (
	"context"
	"time"
	_ "time/tzdata" // the provider tells boot times in Berlin's, also where the host has no zones
)

// What takes time.
const (
	postTime     = "post"           // from power-on until the firmware asks the network what to boot
	rescueTime   = "rescue"         // from there until a booting rescue system has told its host keys
	keyLateTime  = "host-key-late"  // how late those are where a fault says so and no time
	marketTime   = "deliver-market" // from an order to the server's power-on
	standardTime = "deliver-server"
	manualTime   = "deliver-manual" // an order with a comment waits for a person
	lockOutTime  = "lock-out"
)

// shortestFault is how late a fault makes something at least, at whatever pace.
const shortestFault = 250 * time.Millisecond

// Realistic is how long things take at the provider: host keys of a rescue system appear 78 to 82 seconds after a reset,
// a server from the market is delivered in about a minute.
func Realistic(what string) time.Duration {
	switch what {
	case postTime:
		return 40 * time.Second
	case rescueTime:
		return 40 * time.Second
	case keyLateTime:
		return 30 * time.Second
	case marketTime:
		return time.Minute
	case standardTime, lockOutTime:
		return 10 * time.Minute
	case manualTime:
		return 24 * time.Hour
	}
	return 0
}

func (r *Robot) delay(what string) time.Duration {
	if r.opt.Delay != nil {
		return r.opt.Delay(what)
	}
	if r.opt.Speed == 0 {
		return 0
	}
	return r.scaled(Realistic(what))
}

// scaled is a time told at the provider's pace, at ours. Without a speed it is what it says.
func (r *Robot) scaled(d time.Duration) time.Duration {
	if r.opt.Speed == 0 {
		return d
	}
	return time.Duration(float64(d) / r.opt.Speed)
}

// late is how late a fault makes something: what it says, or else what is usual, but never nothing.
func (r *Robot) late(d time.Duration, what string) time.Duration {
	if d > 0 {
		return r.scaled(d)
	}
	return max(r.delay(what), shortestFault)
}

// pause waits, and says false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// local writes a time as the provider does: Berlin's, without a zone.
func (r *Robot) local(t time.Time) string { return t.In(r.berlin).Format("2006-01-02 15:04:05") }
