package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ErrUnreachable: nothing answered the TCP connection.
var ErrUnreachable = errors.New("unreachable")

// HostKeyError: the server that answered is not the one that was pinned. Nothing was sent to it.
type HostKeyError struct {
	Addr string
	Want []string // SHA256:… fingerprints
	Got  string
}

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("%s answers with host key %s, pinned is %s: another machine answers on this address, or its key was changed; nothing was sent to it",
		e.Addr, e.Got, strings.Join(e.Want, " or "))
}

// AuthError: the right server, by its host key, refused our key.
type AuthError struct {
	Addr, User string
	HostKey    string // fingerprint
	Err        error
}

func (e *AuthError) Error() string {
	return fmt.Sprintf("log in to %s as %s (host key %s): %v", e.Addr, e.User, e.HostKey, e.Err)
}

func (e *AuthError) Unwrap() error { return e.Err }

// judge decides on the host key once and keeps what it saw, because the SSH library wraps what a callback returns.
type judge struct {
	addr  string
	trust Trust
	seen  ssh.PublicKey
	wrong *HostKeyError
}

func (j *judge) callback(_ string, _ net.Addr, key ssh.PublicKey) error {
	j.seen = key
	if j.trust.firstUse {
		return nil
	}
	wrong := &HostKeyError{Addr: j.addr, Got: ssh.FingerprintSHA256(key), Want: slices.Clone(j.trust.prints)}
	if slices.Contains(j.trust.prints, wrong.Got) {
		return nil
	}
	for _, pin := range j.trust.pins {
		if SameKey(pin, key) {
			return nil
		}
		wrong.Want = append(wrong.Want, ssh.FingerprintSHA256(pin))
	}
	j.wrong = wrong
	return wrong
}

func (j *judge) explain(ctx context.Context, t Target, err error) error {
	switch {
	case j.wrong != nil:
		return j.wrong
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: no SSH handshake in time: %w", t.Addr, context.Cause(ctx))
	case j.seen != nil && authRefused(err):
		user := t.User
		if user == "" {
			user = "root"
		}
		return &AuthError{Addr: t.Addr, User: user, HostKey: ssh.FingerprintSHA256(j.seen), Err: err}
	default:
		return fmt.Errorf("connect to %s: %w", t.Addr, err)
	}
}

// SameKey compares two public keys.
func SameKey(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && string(a.Marshal()) == string(b.Marshal())
}

// ParseKey reads one line of authorized_keys form, as host keys are reported and kept.
func ParseKey(line string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, fmt.Errorf("read host key %q: %w", line, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("read host key %q: more than one line", line)
	}
	if key.Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("read host key %q: is %s, expected %s", line, key.Type(), ssh.KeyAlgoED25519)
	}
	return key, nil
}
