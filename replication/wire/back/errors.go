package back

import (
	"errors"
	"fmt"
)

// ErrClosed: the pool was closed.
var ErrClosed = errors.New("backend pool is closed")

// Error is a command without a reply.
type Error struct {
	Op string // connect, wait for a connection, send, receive
	// Sent tells that the backend may have got the command: it may have been carried out, or be carried out later.
	Sent bool
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("backend: %s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }
