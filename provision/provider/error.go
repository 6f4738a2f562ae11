package provider

import (
	"errors"
	"strings"
)

// What a caller can act on. Every driver's error that has one of these reasons wraps it.
var (
	ErrUnauthorized = errors.New("the credentials are refused")
	ErrRateLimited  = errors.New("the provider's rate limit is used up")
	ErrUnavailable  = errors.New("no capacity for this server type at this location")
	ErrNotFound     = errors.New("no such object")
	ErrNameTaken    = errors.New("the name is taken by an object that is not ours")
	ErrAmbiguous    = errors.New("more than one object carries our labels")
	ErrProtected    = errors.New("the object is protected against deletion")
	ErrActionFailed = errors.New("the provider's action failed")
	ErrActionGone   = errors.New("the provider no longer knows the action")
	ErrTimeout      = errors.New("gave up waiting")
	ErrBudget       = errors.New("still failing after all tries")
	ErrExpired      = errors.New("the service has expired")
	ErrCantRestart  = errors.New("the machine has no way left to be restarted from outside")
	ErrNoRescue     = errors.New("the rescue system did not come up")
	ErrNotAdopted   = errors.New("a dedicated server has to be named in the fleet file, or ordered")
)

// Error is a failed call: what was tried, why it stopped, and what an operator may do about it.
type Error struct {
	Op   string // "enable rescue of server 42"
	Kind error  // one of the Err values, or nil
	Hint string // may be empty
	Err  error  // the cause; may be nil
}

func (e *Error) Error() string {
	parts := []string{e.Op}
	if e.Kind != nil {
		parts = append(parts, e.Kind.Error())
	}
	if e.Err != nil && (e.Kind == nil || e.Err.Error() != e.Kind.Error()) {
		parts = append(parts, e.Err.Error())
	}
	text := strings.Join(parts, ": ")
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives both the kind and the cause to errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	var out []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}
