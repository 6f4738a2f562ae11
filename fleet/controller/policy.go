package controller

import (
	"fmt"
	"time"
)

// evidence is what the unlock policy decides on. It stays the same as long as nobody hears the node and no operator
// says anything, so that a decision does not change while it waits.
type evidence struct {
	FirstSeen     time.Time `json:"first_seen"`          // the locked node was first seen then
	LastHeard     time.Time `json:"last_heard,omitzero"` // its last report
	LastAlive     time.Time `json:"last_alive,omitzero"` // last seen running by a command on this folder
	ExpectedUntil time.Time `json:"expected_until,omitzero"`
	UnlocksInHour int       `json:"unlocks_in_hour"`
}

// policy is the rule of when a key is sent without a person. It guards against a disk that was carried away and is
// booted elsewhere later, and against a machine that somebody works on at the provider: both need time.
type policy struct {
	recentlyAlive  time.Duration
	unlocksPerHour int
}

// decide says whether the node may get its key, and why or why not.
func (p policy) decide(e evidence) (allow bool, why string) {
	if e.UnlocksInHour >= p.unlocksPerHour {
		return false, fmt.Sprintf("it was unlocked %d times within an hour", e.UnlocksInHour)
	}
	if !e.ExpectedUntil.IsZero() && !e.FirstSeen.After(e.ExpectedUntil) {
		return true, "its reboot was expected"
	}
	last, how := e.LastHeard, "its agent reported"
	if e.LastAlive.After(last) {
		last, how = e.LastAlive, "it was seen running"
	}
	if last.IsZero() {
		return false, "nothing was ever heard of it, and no reboot was expected"
	}
	silent := max(e.FirstSeen.Sub(last), 0).Round(time.Second)
	if silent <= p.recentlyAlive {
		return true, fmt.Sprintf("%s %s before it was seen locked", how, silent)
	}
	return false, fmt.Sprintf("it was silent for %s before it was seen locked (more than %s), and no reboot was expected", silent, p.recentlyAlive)
}
