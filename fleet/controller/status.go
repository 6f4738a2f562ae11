package controller

import (
	"time"

	"popfleet/agents"
)

// Status is the answer of GET /v1/status. Nodes are in the order of the fleet file, and every directed pair of them has
// a row. Unknown is null, never 0.
type Status struct {
	V     int       `json:"v"` // 1
	Time  time.Time `json:"time"`
	Fleet string    `json:"fleet"`
	Nodes []Node    `json:"nodes"`
	Pairs []Pair    `json:"pairs"`
}

// Freshness of a node's reports.
const (
	Fresh       = "fresh"
	Late        = "late"        // no report for three intervals, but somebody hears the node
	Unreachable = "unreachable" // and neither this controller nor any peer that reports hears it
	Never       = "never"       // not one report since the controller's database was made
)

// Node is one node as the controller knows it.
type Node struct {
	Node             string    `json:"node"`
	PoP              string    `json:"pop"`
	Address          string    `json:"address,omitempty"`
	Freshness        string    `json:"freshness"`
	Since            time.Time `json:"since,omitzero"` // of the freshness; zero: as long as the controller runs
	LastReportAgeSec *float64  `json:"last_report_age_sec"`
	HeardBy          []string  `json:"heard_by,omitempty"` // peers whose fresh reports say that they hear it
	SystemAnswers    *bool     `json:"system_answers"`     // port 22 showed a key of this node; null: not asked
	Lock             Lock      `json:"lock"`
	// Suspect is set as long as the node did not boot from what was recorded. Nothing should be taken from it: replication
	// keeps it out, and it gets no key unasked.
	Suspect *Suspect `json:"suspect,omitempty"`
	// Never is who forbade to unlock it; "" when nobody did.
	Never  string         `json:"never,omitempty"`
	Report *agents.Report `json:"report"`
}

// States of a Lock.
const (
	Unlocked    = "unlocked"
	Locked      = "locked"    // waits in its initramfs; a decision is due
	Unlocking   = "unlocking" // the key is being sent
	Held        = "held"      // locked, and a person must decide
	LockUnknown = "unknown"   // nothing answers, or the node is not sealed yet
)

// Lock is how far a node is with its disk.
type Lock struct {
	State      string    `json:"state"`
	Why        string    `json:"why,omitempty"`
	Alarm      bool      `json:"alarm,omitempty"` // held because of a wrong key or a wrong host key
	Next       string    `json:"next,omitempty"`  // the command that goes on
	Since      time.Time `json:"since,omitzero"`
	LastUnlock *Unlock   `json:"last_unlock,omitempty"`
	// LastDecision is this controller's last verdict and its reasons: "allow: its agent reported 20s before …".
	LastDecision string `json:"last_decision,omitempty"`
	// ExpectedUntil is set while a reboot is expected.
	ExpectedUntil time.Time `json:"expected_until,omitzero"`
}

// Suspect is since when and why a node is not believed.
type Suspect struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	Next  string    `json:"next"` // the command that takes it for good again
}

// Unlock is one unlocking and how long its parts took.
type Unlock struct {
	At                  time.Time `json:"at"`
	DropbearToUnlocked  *float64  `json:"dropbear_to_unlocked_sec"`
	UnlockedToReportSec *float64  `json:"unlocked_to_report_sec"` // null until the first report of the new boot
}

// PairUnknown is the state of a pair whose receiver has not reported lately.
const PairUnknown = "unknown"

// Pair is one directed replication link, as its receiver sees it.
type Pair struct {
	agents.Pair
	To  string `json:"to"`
	Why string `json:"why,omitempty"` // of unknown
}

// Accepted is the answer of POST /v1/reports.
type Accepted struct {
	AckedSeq uint64    `json:"acked_seq"` // of the newest report in the batch
	Time     time.Time `json:"time"`
	Interval string    `json:"interval"` // how often the agent should report, "10s"
}

// Expect is the body of POST /v1/nodes/{node}/expect: the node is about to reboot, and may be unlocked unasked when it
// comes back inside the time.
type Expect struct {
	ForSec float64 `json:"for_sec"`
}
