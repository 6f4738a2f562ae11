// Package spec is what the operator's side and fleet-agent say to each other: typed requests on one stream, typed events
// on the other, for one SSH session (docs/protocols/exchange.md). It holds values and their codec only; it does nothing.
package spec

import (
	"encoding/json"
	"time"
)

// Ops that a Request can name. The set is closed: an agent refuses any other.
const (
	OpFacts   = "facts"   // nil → Facts
	OpInstall = "install" // Install → Installed; only in rescue; runs detached, asking again joins the run in progress
	OpSeal    = "seal"    // Seal → Sealed
	OpPlan    = "plan"    // Node → Applied, changes nothing, emits diff events
	OpApply   = "apply"   // Node → Applied
	OpReboot  = "reboot"  // nil → nil; answers before it acts
	OpWipe    = "wipe"    // Wipe → Wiped
)

// Request is the first line of an exchange, and may be followed by further ones on the same stream.
type Request struct {
	V    int             `json:"v"` // 1
	ID   int             `json:"id"`
	Op   string          `json:"op"`
	Spec json.RawMessage `json:"spec,omitempty"`
}

// BlobHeader precedes a blob's bytes on the operator → agent stream: one line, then exactly SizeBytes bytes, or
// WireBytes bytes when Encoding is set; what the need left out by Offset is left out here. With Encoding
// [EncodingPeer] no bytes follow. It answers an Event of kind "need".
type BlobHeader struct {
	Blob      string `json:"blob"`               // sha256 hex of the content
	SizeBytes int64  `json:"size_bytes"`         // of the content
	Encoding  string `json:"encoding,omitempty"` // "" or one that the need accepts
	WireBytes int64  `json:"wire_bytes,omitempty"`
	Peer      *Peer  `json:"peer,omitempty"` // with Encoding "peer": who has it
}

// EncodingZstd is the content as one zstd stream with a window of at most 8 MiB.
const EncodingZstd = "zstd"

// Kinds of Event.
const (
	KindStep     = "step"     // a step began or ended (Status doing|done|skipped)
	KindProgress = "progress" // Done of Total bytes or items
	KindLog      = "log"      // a line of output worth keeping
	KindDiff     = "diff"     // what plan or apply changes: Step names the thing, Text is a unified diff or a sentence
	KindNeed     = "need"     // Blobs the agent lacks; the operator answers with BlobHeader + bytes for each, in order
	KindResult   = "result"   // Data is the result type of the op; last event of a request
	KindError    = "error"    // Error says what and what to do; last event of a request
)

// Event is one line on the agent → operator stream.
type Event struct {
	V      int             `json:"v"` // 1
	ID     int             `json:"id"`
	Time   time.Time       `json:"time"`
	Kind   string          `json:"kind"`
	Step   string          `json:"step,omitempty"`
	Status string          `json:"status,omitempty"`
	Text   string          `json:"text,omitempty"`
	Done   int64           `json:"done,omitempty"`
	Total  int64           `json:"total,omitempty"`
	Blobs  []Blob          `json:"blobs,omitempty"`
	Accept []string        `json:"accept,omitempty"` // with "need": encodings understood besides none
	Data   json.RawMessage `json:"data,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error codes that the operator's side acts on; any other is shown as it is.
const (
	CodeNotRescue    = "not_in_rescue"   // install asked of a machine that is not in rescue
	CodeWrongDisk    = "wrong_disk"      // serial absent, or a disk carries somebody else's Linux
	CodeDiskTooSmall = "disk_too_small"  // smaller than MinGB
	CodeDigest       = "digest_mismatch" // bytes received are not what their name says
	CodeBadSpec      = "bad_spec"        // unknown field, out of bounds
	CodeWrongNode    = "wrong_node"      // the machine says it is another node
	CodeUnhealthy    = "service_unhealthy"
)

// Error is a failure an operator can act on.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}
