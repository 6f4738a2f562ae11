package core

import (
	"popfleet/replication/crdt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Event is something that happened to the node.
type Event interface{ event() }

// Boot is the first event: what the log and the checkpoint hold.
type Boot struct {
	First      crdt.Vector // what was trimmed from the log's beginning, per origin
	Log        []Entry
	Checkpoint Checkpoint
	// Used is the newest sequence number of this node's that may have been given out.
	Used uint64
}

// Request is a client's write to one document.
type Request struct {
	Ticket uint64
	Key    Key
	ID     any
	// Change decides on the document as it is, nil if there is none. It is called again if that turns out stale, so it
	// must be a function of its argument.
	Change func(doc bson.D) Change
	Retry  crdt.Retry
}

// Read asks for a document as of a token or later.
type Read struct {
	Ticket uint64
	Key    Key
	ID     any
	After  crdt.Vector
	// Until is when to give up waiting for the token and tell where it can be read.
	Until int64
}

// Loaded answers Load.
type Loaded struct {
	Job  uint64
	Slot Slot
}

// Done answers Store, Bury and Remove.
type Done struct {
	Job    uint64
	Status Status
}

// Status is how a write to the backend went.
type Status uint8

const (
	// OK: it landed.
	OK Status = iota
	// Mismatch: the document was not what the write expected; nothing happened.
	Mismatch
	// Timeout: nobody knows; it may land until MaxTime after it was sent.
	Timeout
	// Duplicate: a unique index refuses it.
	Duplicate
)

// Appended says that the oldest Append not yet answered is durable.
type Appended struct{}

// Saved says that the oldest Save not yet answered is durable.
type Saved struct{}

// Scanned answers Scan.
type Scanned struct{ Slots []ScannedSlot }

// ScannedSlot is one find of a scan.
type ScannedSlot struct {
	Key  Key
	Slot Slot
}

// Received is a message from a peer.
type Received struct {
	From    crdt.Origin
	Message Message
}

// Tick is the passing of time.
type Tick struct{}

func (Boot) event()     {}
func (Request) event()  {}
func (Read) event()     {}
func (Loaded) event()   {}
func (Done) event()     {}
func (Appended) event() {}
func (Saved) event()    {}
func (Scanned) event()  {}
func (Received) event() {}
func (Tick) event()     {}
