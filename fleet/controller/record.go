package controller

import (
	"slices"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller/policy"
	"popfleet/inventory/vault"
)

// record is what is known of one node. It belongs to the board, which guards it.
type record struct {
	report   *agents.Report
	received time.Time // by this machine's clock
	boots    []string  // boot ids heard of, oldest first

	freshness string
	since     time.Time
	address   string
	sealed    bool
	install   string            // the installation it runs
	said      vault.UnlockState // as last read
	lock      lockRecord
	dirty     bool // not on disk as it is

	// Of this process's life only:
	busy          bool      // a visit is under way
	nextVisit     time.Time // not before
	doorSince     time.Time // dropbear answers since; zero: it does not
	systemAnswers *bool
	systemAsked   time.Time
	cross         policy.CrossCheck // the provider's last answer
	crossAt       time.Time
	proofs        int // attempts to prove this boot that came to nothing
	nextProof     time.Time
}

// lockRecord is the part that outlives the process: an alarm about a key must not be forgotten by a restart.
type lockRecord struct {
	Lock
	Pin        string      `json:"pin,omitempty"`         // fingerprint that was pinned when the alarm was raised
	FirstSeen  time.Time   `json:"first_seen,omitzero"`   // dropbear, since the node was last heard
	Attempts   int         `json:"attempts,omitempty"`    // without a verdict, since the node was last heard
	Unlocks    []time.Time `json:"unlocks,omitempty"`     // of the last hour
	BootBefore string      `json:"boot_before,omitempty"` // boot id before the last unlock
	Decision   string      `json:"decision,omitempty"`    // the one audited last
}

// set changes the state and keeps since when the same state lasts.
func (l *lockRecord) set(now time.Time, state, why, next string) {
	if l.State != state || l.Alarm {
		l.Since = now
	}
	l.State, l.Why, l.Next, l.Alarm, l.Pin = state, why, next, false, ""
}

// alarm holds the node until a person has looked, or until another key is pinned.
func (l *lockRecord) alarm(now time.Time, why, next, pin string) {
	l.set(now, Held, why, next)
	l.Alarm, l.Pin = true, pin
}

// heard ends the episode of being silent.
func (l *lockRecord) heard(now time.Time) {
	l.set(now, Unlocked, "", "")
	l.FirstSeen, l.Attempts, l.Decision = time.Time{}, 0, ""
}

// opened writes down that the machine took its key.
func (l *lockRecord) opened(now, doorSince time.Time, bootBefore string) {
	u := &Unlock{At: now}
	if !doorSince.IsZero() {
		s := now.Sub(doorSince).Seconds()
		u.DropbearToUnlocked = &s
	}
	l.LastUnlock, l.BootBefore = u, bootBefore
	l.Unlocks = append(recent(l.Unlocks, now), now)
	l.heard(now)
	l.ExpectedUntil = time.Time{} // one mark, one unlock
}

// reported completes the times of the last unlock by the first report of the new boot.
func (l *lockRecord) reported(now time.Time, boot string) {
	u := l.LastUnlock
	if u == nil || u.UnlockedToReportSec != nil || boot == l.BootBefore {
		return
	}
	done := *u // the old one may be in an answer that is being written
	s := now.Sub(u.At).Seconds()
	done.UnlockedToReportSec = &s
	l.LastUnlock = &done
}

// recent are the times of the last hour.
func recent(times []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return now.Sub(t) > time.Hour })
}

// maxBoots bounds how many boots of a node are remembered to know a spooled report from a new boot.
const maxBoots = 16

// newer says whether r is later than what is kept. Within a boot the sequence decides. Between boots the node's clock
// does, unless the boot was never heard of and the kept one has been silent for longer than late: then its clock was
// put back.
func (rec *record) newer(r *agents.Report, now time.Time, late time.Duration) bool {
	have := rec.report
	switch {
	case have == nil:
		return true
	case have.BootID == r.BootID:
		return r.Seq > have.Seq
	case r.Time.After(have.Time):
		return true
	}
	return !slices.Contains(rec.boots, r.BootID) && now.Sub(rec.received) > late
}

func (rec *record) take(r *agents.Report, now time.Time) {
	if rec.report != nil && rec.report.BootChanged != r.BootChanged {
		rec.proofs, rec.nextProof = 0, time.Time{} // something new to look at, before it reboots
	}
	rec.report, rec.received, rec.dirty = r, now, true
	if !slices.Contains(rec.boots, r.BootID) {
		rec.proofs, rec.nextProof = 0, time.Time{}
		rec.boots = append(rec.boots, r.BootID)
		rec.boots = rec.boots[max(0, len(rec.boots)-maxBoots):]
	}
	rec.systemAnswers, rec.doorSince, rec.nextVisit = nil, time.Time{}, time.Time{}
	rec.lock.reported(now, r.BootID)
	rec.lock.heard(now)
}
