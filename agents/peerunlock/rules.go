package peerunlock

import (
	"fmt"
	"slices"
	"time"
)

// Rules bound what a peer does by itself; see docs/protocols/peer-unlock.md for why each is there.
type Rules struct {
	// Recently is how long ago this peer may have seen a ward alive and still believe that the machine at its address is
	// the ward, rebooting. A machine that was away for longer waits for a person.
	Recently time.Duration
	// Silent is how long a ward is silent before it is asked whether it is locked.
	Silent time.Duration
	// Pause is between two hand-overs of one share: it is in the ward's memory, and goes with a power cut.
	Pause time.Duration
	// Hourly bounds how many times in an hour a ward is opened with this peer's share: a machine that reboots over and over
	// is broken, or somebody collects.
	Hourly int
}

// DefaultRules are those of a node. Recently is the rule of facts on remote unlock: five to fifteen minutes.
func DefaultRules() Rules {
	return Rules{Recently: 15 * time.Minute, Silent: 20 * time.Second, Pause: 30 * time.Second, Hourly: 3}
}

// memory is what this peer knows of one ward.
type memory struct {
	Alive  time.Time   `json:"alive"`  // seen last, by this peer
	Opened []time.Time `json:"opened"` // outages of the last hour that this peer's share was taken in
	// Counted is whether the outage now is among Opened.
	Counted bool `json:"counted,omitempty"`
	// Refused is why the share is not sent again, until the ward is alive or the share is another one.
	Refused string `json:"refused,omitempty"`

	// Share is a digest of the share, and of whom it is for, that the rest speaks of.
	Share string `json:"share"`

	pushed time.Time
}

// seen is called whenever the ward is alive.
func (m *memory) seen(now time.Time) {
	m.Alive, m.Refused, m.Counted, m.pushed = now, "", false, time.Time{}
}

// decide says whether the share may be handed over now. final means that only a change will change it.
func (r Rules) decide(now time.Time, m memory) (push bool, why string) {
	away := now.Sub(m.Alive)
	switch {
	case m.Alive.IsZero():
		return false, "this node never saw it alive"
	case away < 0:
		return false, "it was seen alive in the future: a clock was wrong"
	case away < r.Silent:
		return false, ""
	case away > r.Recently:
		return false, fmt.Sprintf("it was seen alive last %s ago, longer than %s: a person decides", away.Round(time.Second), r.Recently)
	case m.Refused != "":
		return false, m.Refused
	case !m.Counted && len(m.lastHour(now)) >= r.Hourly:
		return false, fmt.Sprintf("it was opened %d times within the hour: a person decides", len(m.lastHour(now)))
	case !m.pushed.IsZero() && now.Sub(m.pushed) < r.Pause:
		return false, ""
	}
	return true, ""
}

func (m memory) lastHour(now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(m.Opened), func(t time.Time) bool { return now.Sub(t) > time.Hour })
}

// taken writes down that the ward has the share.
func (m *memory) taken(now time.Time) {
	if !m.Counted {
		m.Opened = append(m.lastHour(now), now)
		m.Counted = true
	}
}
