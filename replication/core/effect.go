package core

import (
	"popfleet/replication/crdt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Effect is something the driver has to do.
type Effect interface{ effect() }

// Load asks for what the backend holds for a key, read with majority. ID is the document's _id, by which a backend finds it.
type Load struct {
	Job uint64
	Key Key
	ID  any
}

// Store writes a document if the one that is there has the change number Expect, 0 for none. The backend gives it up
// after MaxTime.
type Store struct {
	Job    uint64
	Key    Key
	Doc    crdt.Doc
	Expect uint64
}

// Bury writes a tombstone under the same condition.
type Bury struct {
	Job    uint64
	Key    Key
	Tomb   crdt.Doc
	Expect uint64
}

// Remove removes a document under the same condition. One that is not there is removed.
type Remove struct {
	Job    uint64
	Key    Key
	ID     any
	Expect uint64
}

// Forget drops a tombstone under the same condition. Nobody waits for it.
type Forget struct {
	Key    Key
	ID     any
	Expect uint64
}

// Append appends entries to the log, in order, and makes them durable.
type Append struct{ Entries []Entry }

// Trim drops an origin's entries up to a sequence number: every member has them.
type Trim struct {
	Origin crdt.Origin
	Seq    uint64
}

// Save keeps a checkpoint.
type Save struct{ Checkpoint Checkpoint }

// Scan asks for all documents with change numbers beyond After, and for all tombstones.
type Scan struct{ After uint64 }

// Send sends a message to a peer. It may be lost.
type Send struct {
	To      crdt.Origin
	Message Message
}

// Reply answers a Request or a Read.
type Reply struct {
	Ticket uint64
	Result Result
	// Token is what a session must have seen to see this write, or what this read has seen.
	Token crdt.Vector
	// Doc is the document after a write, or as read.
	Doc bson.D
	Err error
	// Repeated says that the write was done by an earlier request, Stored is what that one's Change gave as Result: nil
	// where the entry was rebuilt from its document.
	Repeated bool
	Stored   []byte
	// Origin is where a read that came too early would find what it waits for.
	Origin crdt.Origin
}

// Result is how a request went.
type Result uint8

const (
	// Acknowledged: it happened and is durable.
	Acknowledged Result = iota
	// Unchanged: it happened and changed nothing.
	Unchanged
	// Refused: it did not happen and won't; Err says why.
	Refused
	// Failed: it did not happen; it may be sent again.
	Failed
	// Unsure: it happened here, but no second log has it yet.
	Unsure
	// TooEarly: the read's token has not arrived here.
	TooEarly
)

// Message goes between peers.
type Message interface{ message() }

// Batch carries entries of one or more origins, each origin's in order.
type Batch struct{ Entries []Entry }

// State is what a node tells its peers every beat and after everything that they wait for.
type State struct {
	Have     crdt.Vector // durable in its log
	Applied  crdt.Vector
	Promises []Promise
	Low      crdt.Stamp // everything up to it, of every member, is applied there
	Seq      uint64     // its own newest write when Low was true
	Clock    crdt.Stamp
}

// Promise says that an origin's writes up to a stamp are those up to a sequence number.
type Promise struct {
	Origin crdt.Origin
	Seq    uint64
	Stamp  crdt.Stamp
}

func (Load) effect()   {}
func (Store) effect()  {}
func (Bury) effect()   {}
func (Remove) effect() {}
func (Forget) effect() {}
func (Append) effect() {}
func (Save) effect()   {}
func (Trim) effect()   {}
func (Scan) effect()   {}
func (Send) effect()   {}
func (Reply) effect()  {}

func (Batch) message() {}
func (State) message() {}
