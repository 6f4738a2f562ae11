package oplog

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrFormat is bytes that are no entry, or no vector, of this version.
	ErrFormat = errors.New("not in the log's format")
	// ErrClosed is a log that was closed.
	ErrClosed = errors.New("log: closed")
	// ErrFailed is a log whose disk failed under a write: start the process again, so that it recovers from what is there.
	ErrFailed = errors.New("log: its disk failed under a write: restart the replicator; see the kernel's log for the disk")
	// ErrTooBig is an entry beyond the limits; nothing was written.
	ErrTooBig = errors.New("entry beyond the limits of the log")
	// ErrAhead is an entry so far beyond its origin's last that it can't belong there.
	ErrAhead = errors.New("entry too far ahead of its origin's last")
	// ErrOrigin is a log of another node.
	ErrOrigin = errors.New("log belongs to another node")
	// ErrTxnTooOld is a retry of a transaction number that its session has left behind.
	ErrTxnTooOld = errors.New("session has a newer transaction number")

	// ErrSoft and ErrFull are the two kinds of *BudgetError.
	ErrSoft = errors.New("log: beyond its soft limit")
	ErrFull = errors.New("log: its budget is used up: is a peer away for long? remove it from the fleet or raise the budget")
)

// BudgetError says how full the log is. It is ErrSoft (go on after Delay) or ErrFull (refuse the write).
type BudgetError struct {
	Kind             error
	Used, Soft, Hard int64 // bytes
	Delay            time.Duration
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("%v (%d of %d bytes used, soft limit %d)", e.Kind, e.Used, e.Hard, e.Soft)
}

func (e *BudgetError) Unwrap() error { return e.Kind }

// DamageError is a stretch of one origin's entries that is there no more as it was written. Rebuild it from the
// documents, or take it from a peer, and Repair.
type DamageError struct {
	Origin   uint8
	From, To uint64 // both included
	Cause    error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("log: entries %d to %d of origin %d are damaged: %v", e.From, e.To, e.Origin, e.Cause)
}

func (e *DamageError) Unwrap() error { return e.Cause }

// TruncatedError is a read of entries that everybody had and that are therefore gone: who asks has to be seeded again.
type TruncatedError struct {
	Origin uint8
	Floor  uint64 // entries up to here are gone
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("log: entries of origin %d up to %d were truncated: the reader has to be seeded again", e.Origin, e.Floor)
}
