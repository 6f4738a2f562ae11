package core

import (
	"popfleet/replication/bsonval"
	"popfleet/replication/crdt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Key names a document: its collection and the canonical bytes of its _id.
type Key struct{ NS, ID string }

// KeyOf is the key of a document.
func KeyOf(ns string, id any) Key { return Key{ns, string(bsonval.Canonical(id))} }

// Entry is one write in the log. A void entry fills the place of a write that did not happen.
type Entry struct {
	Origin crdt.Origin
	Seq    uint64
	Stamp  crdt.Stamp
	Key    Key
	Delta  crdt.Delta
	Void   bool
	// Deps is what the origin had applied when it wrote: nobody applies the entry before.
	Deps crdt.Vector
	// Forgot is up to where the origin had forgotten deletes when it wrote (MergeKnowing).
	Forgot crdt.Stamp
	Retry  crdt.Retry
	// Result is what the client's operation is answered with when it is sent again.
	Result []byte
}

// Slot is what a backend holds for one key: the document, and the tombstone of a document that was.
type Slot struct {
	Doc, Tomb       crdt.Doc
	HasDoc, HasTomb bool
}

// State is what the two say together.
func (s Slot) State() crdt.Doc {
	if !s.HasTomb {
		return s.Doc
	}
	if !s.HasDoc {
		return s.Tomb
	}
	return s.Doc.Merge(s.Tomb.Portable())
}

// Member is a node of the cluster.
type Member struct {
	ID  crdt.Origin
	PoP string
}

// Durability is what an acknowledged write has survived.
type Durability uint8

const (
	// Local: the backend and this node's log.
	Local Durability = iota
	// Pair: also the log of another node of the same PoP.
	Pair
)

// Config is what a machine is told once. Times are milliseconds.
type Config struct {
	Self       crdt.Origin
	Members    []Member // with Self
	Durability Durability
	// MaxTime is how long the backend may take to land a write that it did not answer.
	MaxTime int64
	// AckTime is how long a client waits for the second log.
	AckTime int64
	// Beat is the time between two messages of state to a peer.
	Beat int64
	// MaxAhead is how far ahead a peer's clock is believed.
	MaxAhead int64
	// Keep is how long an entry stays in the log though everybody has it: as long as a client may send it again.
	Keep int64
	// Batch is how many entries go to a peer at once.
	Batch int
}

// DefaultConfig fits a fleet on real links.
func DefaultConfig() Config {
	return Config{Durability: Pair, MaxTime: 5000, AckTime: 2000, Beat: 1000, MaxAhead: 60_000, Keep: 30 * 60_000, Batch: 256}
}

// Checkpoint is what a node keeps beside its log. All of it may be stale.
type Checkpoint struct {
	Applied crdt.Vector
	// Safe: every write of this node's with a change number up to it is in the log.
	Safe uint64
	// Local: no change number beyond it by more than localSpan was ever given out. It is kept before the first write of a
	// run, so that a write of the run before that lands late is never taken for one of this run.
	Local uint64
	// Reserved: no promise about stamps goes beyond it, and no stamp after a restart is below it.
	Reserved crdt.Stamp
	// Forgotten: deletes up to it may be forgotten here. It is kept before any is, because what comes from elsewhere is
	// read by it.
	Forgotten crdt.Stamp
}

// Change is what a request makes of a document.
type Change struct {
	Kind ChangeKind
	Doc  bson.D    // of an insert
	Ops  []crdt.Op // of an update
	Err  error     // of a refusal
	// Result is kept with the entry of a retryable request; see Reply.Stored.
	Result []byte
}

// ChangeKind is the kind of a change.
type ChangeKind uint8

// The kinds of changes.
const (
	Nothing ChangeKind = iota
	Insert
	Update
	Delete
)
