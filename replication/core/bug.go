package core

// Bug is a seeded mistake: a rule left out, compiled in only with the tag mutants, so that the simulation can prove that
// it would notice.
type Bug uint8

// The mistakes.
const (
	NoBug                 Bug = iota
	NoGuard                   // writes to the backend have no condition
	UnlockedDocument          // writes to one document are not queued
	TombstoneAfterDelete      // the document is removed, then its tombstone is written
	CheckpointBeforeApply     // the checkpoint says what is logged, not what is applied
	ForgetWithoutOne          // garbage is collected without asking one peer
	ForgetTooEarly            // a peer's watermark counts before its older writes are here
	MissingSeen               // a set does not say which increments it saw
	MaximumIsSet              // a maximum is sent as a set
	AckBeforePair             // the client is answered before the second log has its write
	AnnounceBeforeDurable     // entries that a power cut can still take are announced as kept
	NoRecoveryScan            // the backend is not searched after a crash
	TrustLateLanding          // a write that lands after it was given up is left alone
	ForgetSessions            // a request that is sent again is done again
	IgnoreDependencies        // entries are applied as they come
	PromiseBeyondReserve      // a promise is made that a restart may not keep
	bugs
)

// Bugs lists all mistakes.
func Bugs() []Bug {
	out := make([]Bug, 0, bugs)
	for b := NoBug + 1; b < bugs; b++ {
		out = append(out, b)
	}
	return out
}

func (b Bug) String() string {
	return [...]string{"none", "no guard", "unlocked document", "tombstone after delete", "checkpoint before apply",
		"forget without one peer", "forget too early", "missing seen-vector", "maximum is a set", "ack before pair",
		"announce before durable", "no recovery scan", "trust late landing", "forget sessions", "ignore dependencies",
		"promise beyond reserve"}[b]
}
