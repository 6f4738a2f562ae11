// Package policy decides whether a locked node may be handed its disk key. It is pure: everything that is known goes in,
// a verdict with the finding of every rule comes out, and nothing is asked, sent or written. Controllers and commands
// decide by the same rules; docs/protocols/controller.md has them in a table.
//
// A verdict is allow, hold (a person may approve it, once) or never. Without a reason to allow there is none: an empty
// [Facts] is held.
package policy

import (
	"strings"
	"time"

	"popfleet/inventory/vault"
)

// Decision is what may be done.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Hold  Decision = "hold"
	Never Decision = "never"
)

// Asker is who wants to unlock.
type Asker string

// The askers. An operator who names a node says by this that it is expected to be locked.
const (
	Controller Asker = "controller"
	Operator   Asker = "operator"
)

// CrossCheckRule says what a cross-check that can't be made means.
type CrossCheckRule string

// The rules for the provider's cross-check.
const (
	WhenPossible CrossCheckRule = "when-possible" // the verdict says that it was not made
	Required     CrossCheckRule = "required"      // the node is held
)

// Settings are a fleet's own; the zero value means the defaults.
type Settings struct {
	RecentlyAlive  time.Duration  // default 15m
	UnlocksPerHour int            // default 6
	CrossCheck     CrossCheckRule // default when-possible
}

// Complete fills in the defaults.
func (s Settings) Complete() Settings {
	if s.RecentlyAlive <= 0 {
		s.RecentlyAlive = 15 * time.Minute
	}
	if s.UnlocksPerHour <= 0 {
		s.UnlocksPerHour = 6
	}
	if s.CrossCheck == "" {
		s.CrossCheck = WhenPossible
	}
	return s
}

// Facts are what is known of a locked node. They are written into the audit log with the verdict, and hold no secret.
type Facts struct {
	Now   time.Time `json:"now"`
	Asker Asker     `json:"asker"`
	Who   string    `json:"who"`

	FirstSeen     time.Time `json:"first_seen,omitzero"`     // locked, since it was last heard
	LastHeard     time.Time `json:"last_heard,omitzero"`     // its last report
	LastAlive     time.Time `json:"last_alive,omitzero"`     // last seen running before that, by a command
	ExpectedUntil time.Time `json:"expected_until,omitzero"` // a reboot by the fleet
	UnlocksInHour int       `json:"unlocks_in_hour"`

	Pinned []string `json:"pinned"` // fingerprints its initramfs may show
	Shown  string   `json:"shown"`  // the one it shows

	Never    *vault.Order     `json:"never,omitempty"`
	Approval *vault.Order     `json:"approval,omitempty"`
	Suspect  *vault.Suspicion `json:"suspect,omitempty"`

	Provider CrossCheck `json:"provider"`
}

// Finding is what one rule says.
type Finding struct {
	Rule     string   `json:"rule"`
	Decision Decision `json:"decision"`
	Why      string   `json:"why"`
	// Final marks a hold that no approval lifts.
	Final bool `json:"final,omitempty"`
}

// Verdict is the decision and how it came about.
type Verdict struct {
	Decision Decision  `json:"decision"`
	Why      string    `json:"why"`
	Findings []Finding `json:"findings"`
	// Approved: without the person's approval it would be a hold. The approval is used up with the attempt.
	Approved bool `json:"approved,omitempty"`
}

// rules are asked in this order; each says what it would decide if it were alone.
var rules = []func(Settings, Facts) Finding{forbidden, hostKey, suspect, restarts, awaited, crossCheck}

// Decide asks every rule.
func (s Settings) Decide(f Facts) Verdict {
	s = s.Complete()
	v := Verdict{Decision: Allow}
	final := false
	var holds []string
	for _, rule := range rules {
		found := rule(s, f)
		v.Findings = append(v.Findings, found)
		switch found.Decision {
		case Never:
			v.Decision, v.Why = Never, found.Why
			return v
		case Hold:
			holds = append(holds, found.Why)
			final = final || found.Final
		}
	}
	switch {
	case len(holds) == 0:
		v.Why = v.reasons()
	case !final && f.Approval.Holds(f.Now):
		v.Approved, v.Why = true, "approved by "+f.Approval.By+", although "+strings.Join(holds, "; ")
	default:
		v.Decision, v.Why = Hold, strings.Join(holds, "; ")
	}
	return v
}

// reasons are why it is allowed, and what could not be checked.
func (v Verdict) reasons() string {
	var why []string
	for _, f := range v.Findings {
		if f.Why != "" {
			why = append(why, f.Why)
		}
	}
	return strings.Join(why, "; ")
}
