package cli

import (
	"errors"
	"fmt"
)

// Exit codes. They are part of the interface: scripts depend on them.
const (
	CodeDone        = 0
	CodeError       = 1
	CodeChanges     = 2   // plan found changes, or drift
	CodePartial     = 3   // some nodes failed, the others are as wanted
	CodeRolledBack  = 4   // an upgrade failed and was taken back
	CodeLocked      = 5   // another run holds the lock
	CodeInterrupted = 130 // a signal ended the run; the same command goes on
)

var codeMeaning = map[int]string{
	CodeDone:        "done: everything is as the fleet file says",
	CodeError:       "error: nothing, or not everything, was done; the message says what and what to do",
	CodeChanges:     "changes: `fleet plan` found something that `fleet up` would do",
	CodePartial:     "partial: some nodes failed, the others are as wanted; the summary names the command that goes on",
	CodeRolledBack:  "rolled back: an upgrade failed and the node was taken back to the release before",
	CodeLocked:      "locked: another run works on this folder; the message names who, where and since when",
	CodeInterrupted: "interrupted: a signal ended the run; run the same command again, it goes on where it was",
}

// exitError carries an exit code; a nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func exit(code int, err error) error { return &exitError{code, err} }

func codeOf(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return CodeDone
	case errors.As(err, &e):
		return e.code
	}
	return CodeError
}
