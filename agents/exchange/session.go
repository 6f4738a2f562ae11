// Package exchange is the node's end of one operator connection (docs/protocols/exchange.md): it reads requests, hands
// each to the handler of its op, and carries events and blobs. It does no work of its own and knows no op's meaning.
package exchange

import (
	"context"
	"encoding/json"
	"io"

	"popfleet/playbooks/spec"
)

// Session is what a handler may do with the connection while it serves one request.
type Session interface {
	// Emit sends one event; V, ID and Time are filled in. It never blocks a handler on a dead peer for ever.
	Emit(e spec.Event)
	// Fetch asks the operator for blobs and calls got for each, in order, with a reader of exactly its bytes whose
	// digest is checked: a mismatch is an error with spec.CodeDigest after got returned.
	Fetch(ctx context.Context, blobs []spec.Blob, got func(spec.Blob, io.Reader) error) error
}

// Handler serves one op: it decodes its spec strictly and returns the result to send.
type Handler func(ctx context.Context, specJSON json.RawMessage, s Session) (result any, err error)
