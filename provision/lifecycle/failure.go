package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// Conditions a caller can act on.
var (
	ErrNoServer     = errors.New("no server carries this node's labels")
	ErrWrongNode    = errors.New("the machine says it is another node")
	ErrNotEncrypted = errors.New("the machine's root is not on LUKS")
	ErrForeignDisk  = errors.New("the disk does not carry the installation that was made")
	ErrResetIgnored = errors.New("the machine went on running: the restart had no effect")
	ErrDiskBooted   = errors.New("the disk booted although rescue was enabled")
	ErrNoAnswer     = errors.New("no answer")
	ErrHeld         = errors.New("the unlock policy holds the node back")
	ErrRelocked     = errors.New("it restarted and is locked again")
)

func isReported(err error) bool {
	var told *spec.Error
	return errors.As(err, &told)
}

// final says that trying again can't help, or must not happen without a person.
func final(err error) bool {
	var wrong *remote.HostKeyError
	var unlock *remote.UnlockError
	var told *spec.Error
	var over *enough
	switch {
	case errors.As(err, &wrong), errors.Is(err, ErrWrongNode), errors.Is(err, ErrNotEncrypted), errors.Is(err, ErrForeignDisk),
		errors.Is(err, ErrHeld), errors.Is(err, ErrSuspect), errors.Is(err, ErrNoServer), errors.As(err, &over):
		return true
	case errors.As(err, &unlock):
		return unlock.Final()
	case errors.As(err, &told):
		return finalCodes[told.Code]
	}
	return false
}

// enough marks an error whose own escalation has run its course.
type enough struct{ error }

func (e *enough) Unwrap() error { return e.error }

// finalCodes: what a machine reports and an operator must look into. Anything else may be a passing trouble.
var finalCodes = map[string]bool{
	spec.CodeWrongDisk: true, spec.CodeDiskTooSmall: true, spec.CodeBadSpec: true, spec.CodeWrongNode: true,
}

// judgeDoor compares who answers with who may: nil when it is one of them or nobody showed a key.
func judgeDoor(addr string, d remote.Door, may []ssh.PublicKey) error {
	if d.HostKey == nil || oneOf(d.HostKey, may) {
		return nil
	}
	e := &remote.HostKeyError{Addr: addr, Got: d.Fingerprint()}
	for _, k := range may {
		e.Want = append(e.Want, ssh.FingerprintSHA256(k))
	}
	return e
}

func oneOf(key ssh.PublicKey, keys []ssh.PublicKey) bool {
	for _, k := range keys {
		if remote.SameKey(k, key) {
			return true
		}
	}
	return false
}

// failed is err with everything a person needs.
func (n *node) failed(stage Stage, err error) *Error {
	var done *Error
	if errors.As(err, &done) {
		if err == error(done) {
			return done
		}
		whole := *done
		whole.Err = err
		return &whole
	}
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("interrupted: %w", err)
	}
	e := &Error{Node: n.name, Op: n.op, Stage: stage, Waiting: n.wait.text, Since: n.wait.since, Log: n.tail, Err: err}
	e.Next = n.next(err)
	return e
}

// advice is what has to be different before the same command can succeed.
var advice = map[string]string{
	spec.CodeDiskTooSmall: "take a machine with a larger disk, or lower disks.min_gb in fleet.yaml",
	spec.CodeWrongDisk:    "find out whose disk it is",
}

// next is the command that goes on after err.
func (n *node) next(err error) string {
	var wrong *remote.HostKeyError
	var unlock *remote.UnlockError
	var told *spec.Error
	again := "fleet up " + n.name
	if pop := n.want.Node.PoP; pop != "" {
		again = "fleet up " + pop
	}
	switch {
	case errors.Is(err, ErrSuspect):
		return "find out who changed it; if it was you: fleet unlock --trust " + n.name
	case errors.As(err, &wrong):
		return "look at the machine's console at the provider before anything else; when its own key answers again: " + again
	case errors.As(err, &unlock) && unlock.Outcome == remote.WrongKey:
		return "open it at the console with its recovery key, then: " + again
	case errors.As(err, &told) && advice[told.Code] != "":
		return advice[told.Code] + ", then: " + again
	}
	return again
}

// timeSuspect adds the usual reason why a right certificate is refused.
func timeSuspect(err error) error {
	var auth *remote.AuthError
	if errors.As(err, &auth) && !strings.Contains(err.Error(), "clock") {
		return fmt.Errorf("%w (certificates are short-lived: compare this machine's clock with the node's)", err)
	}
	return err
}
