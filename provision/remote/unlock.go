package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
)

// Outcome is what became of one key sent to a locked machine: by the door of provision/initramfs, which tries a key on the
// header before it uses one of the machine's three tries, or by cryptroot-unlock of Debian's cryptsetup-initramfs alone.
type Outcome string

// The outcomes. Only WrongKey and TriesExceeded are final; Unknown must be settled by looking what answers next.
const (
	Opened         Outcome = "opened"
	WrongKey       Outcome = "wrong key"           // a try is gone, unless the door says that none was used
	Busy           Outcome = "busy"                // another unlocker is at the door; costs nothing
	TooEarly       Outcome = "too early"           // no prompt yet; costs nothing
	AskpassTimeout Outcome = "no askpass prompt"   // ten seconds without a prompt; normal for ≥ 40 s on a degraded array
	TriesExceeded  Outcome = "tries exceeded"      // the machine asks for nothing any more and will reboot (panic=60)
	Unknown        Outcome = "connection lost"     // it may have been opened: the initramfs kills its sessions then
	Refused        Outcome = "no attempt was made" // host key, login or network stopped it before the key was sent
	Strange        Outcome = "answer not understood"
)

// Locked is a machine waiting in its initramfs.
type Locked struct {
	Addr    string // host:port of dropbear
	HostKey ssh.PublicKey
	Auth    ssh.Signer
	Timeout time.Duration // of the whole attempt; default 60s: argon2id takes 12–19 s under emulation
}

// SendKey logs in once and hands over key once, without a newline: a newline would make it wrong. It returns the
// machine's own words beside the outcome. The error is set for Refused only, and then no key has left.
func SendKey(ctx context.Context, d dial.Dialer, l Locked, key []byte) (Outcome, string, error) {
	if len(key) == 0 || bytes.ContainsAny(key, "\n\r") {
		// Even an empty one burns a try.
		return Refused, "", errors.New("unlock: the key is empty or holds a newline: not sent")
	}
	timeout := orDefault(l.Timeout, time.Minute)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := Connect(ctx, d, Target{Addr: l.Addr, Trust: Pinned(l.HostKey), Auth: l.Auth, Timeout: timeout})
	if err != nil {
		return Refused, "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.link.Close() })
	defer stop()
	s, err := c.client.NewSession()
	if err != nil {
		return Refused, "", fmt.Errorf("unlock %s: %w", l.Addr, err)
	}
	defer s.Close()
	said := newTail()
	s.Stdout, s.Stderr, s.Stdin = said, said, bytes.NewReader(key)
	err = s.Run("cryptroot-unlock") // the forced command runs whatever is asked for
	words := strings.Join(said.lines(), " | ")
	return classify(err, words), words, nil
}

// The texts are those of /usr/share/cryptsetup/initramfs/bin/cryptroot-unlock (2:2.6.1), which are not translated, and of
// provision/initramfs/files/fleet-door.
func classify(err error, words string) Outcome {
	var exit *ssh.ExitError
	switch {
	case err == nil, strings.Contains(words, "set up successfully"):
		return Opened
	case strings.Contains(words, "fleet: busy"):
		return Busy
	case strings.Contains(words, "fleet: wrong key"):
		return WrongKey
	case strings.Contains(words, "fleet: no key came"): // it was lost on the way
		return Unknown
	case strings.Contains(words, "bad password"):
		return WrongKey
	case strings.Contains(words, "maximum number of tries exceeded"):
		return TriesExceeded
	case strings.Contains(words, "Timeout reached while waiting for askpass"):
		return AskpassTimeout
	case strings.Contains(words, "ry again later"):
		return TooEarly
	case errors.As(err, &exit) && exit.ExitStatus() != 255 && exit.Signal() == "":
		return Strange
	}
	return Unknown
}

// Unlocking is one decision to open one machine: it may need several logins until the machine asks for its key, but
// hands over the key for a verdict once only.
type Unlocking struct {
	Locked
	System string // host:port of the booted system's sshd
	// SystemKeys are the host keys the booted system may show.
	SystemKeys []ssh.PublicKey
	// Lease is taken before the first attempt and released after the last: two unlockers at once burn two tries.
	Lease func(ctx context.Context) (release func(), err error)
	// Patience is how long an early machine is asked again; at least 90 s times the pace (degraded RAID1: prompt at 40 s).
	Patience time.Duration
	// Settle is how long a lost connection may take to show what came of it.
	Settle time.Duration
	Pause  time.Duration // between attempts; default 3s
	// Tell hears what is going on; may be nil.
	Tell func(text string)
}

// UnlockError is a machine that stays locked; Outcome says why, Words are the machine's own.
type UnlockError struct {
	Addr    string
	Outcome Outcome
	Words   string
	Err     error
}

func (e *UnlockError) Error() string {
	msg := fmt.Sprintf("unlock %s: %s", e.Addr, e.Outcome)
	if e.Words != "" {
		msg += ": " + e.Words
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Final says that another attempt would burn a try, or meet the same refusal.
func (e *UnlockError) Final() bool {
	var wrong *HostKeyError
	var auth *AuthError
	switch e.Outcome {
	case WrongKey, TriesExceeded, Strange:
		return true
	}
	return errors.As(e.Err, &wrong) || errors.As(e.Err, &auth)
}

func (e *UnlockError) Unwrap() error { return e.Err }

// Unlock opens the machine or says why not. After WrongKey and TriesExceeded nothing is tried again: a person decides.
func Unlock(ctx context.Context, d dial.Dialer, u Unlocking, key []byte) error {
	if u.Tell == nil {
		u.Tell = func(string) {}
	}
	if u.Lease != nil {
		release, err := u.Lease(ctx)
		if err != nil {
			return fmt.Errorf("unlock %s: %w", u.Addr, err)
		}
		defer release()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.patience()+u.settle(),
		&UnlockError{Addr: u.Addr, Outcome: TooEarly, Words: fmt.Sprintf("it did not ask for its key within %s", u.patience())})
	defer cancel()
	for {
		outcome, words, err := SendKey(ctx, d, u.Locked, key)
		again, err := u.decide(ctx, d, outcome, words, err)
		if !again {
			return err
		}
		u.Tell(fmt.Sprintf("%s, asking again", outcome))
		if err := pause(ctx, u.pauseTime()); err != nil {
			return err
		}
	}
}

// decide says whether another attempt may follow.
func (u Unlocking) decide(ctx context.Context, d dial.Dialer, o Outcome, words string, err error) (again bool, _ error) {
	fail := &UnlockError{Addr: u.Addr, Outcome: o, Words: words, Err: err}
	switch o {
	case Opened:
		return false, nil
	case TooEarly, AskpassTimeout:
		return true, nil
	case Busy:
		return !u.systemUp(ctx, d), nil // whoever was first may have opened it
	case Refused:
		// A machine that is busy with its own boot may drop the login; another key never becomes the right one.
		if fail.Final() || ctx.Err() != nil {
			return false, u.because(ctx, fail)
		}
		return !u.systemUp(ctx, d), nil // somebody else may have opened it
	case Unknown:
		return u.settled(ctx, d, fail)
	}
	return false, fail
}

// settled looks what answers after a lost connection. The system's sshd, or a door that stays shut, mean that the
// initramfs has ended: the key was taken, and whoever waits for the system finds out the rest. A dropbear that still
// answers after the settling time took nothing, and may be asked again.
func (u Unlocking) settled(ctx context.Context, d dial.Dialer, fail *UnlockError) (again bool, _ error) {
	u.Tell("the connection was lost; looking what answers next")
	settling, cancel := context.WithTimeout(ctx, u.settle())
	defer cancel()
	for shut := 0; ; {
		if u.systemUp(settling, d) {
			return false, nil
		}
		if door := Look(settling, d, u.Addr); door.Open {
			shut = 0
		} else if shut++; shut == 3 {
			return false, nil
		}
		if pause(settling, u.pauseTime()) != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return false, u.because(ctx, fail)
	}
	return true, nil
}

func (u Unlocking) systemUp(ctx context.Context, d dial.Dialer) bool {
	door := Look(ctx, d, u.System)
	for _, k := range u.SystemKeys {
		if SameKey(k, door.HostKey) {
			return true
		}
	}
	return false
}

func (u Unlocking) because(ctx context.Context, fail *UnlockError) error {
	var late *UnlockError
	if !fail.Final() && errors.As(context.Cause(ctx), &late) {
		return late
	}
	return fail
}

func (u Unlocking) patience() time.Duration { return orDefault(u.Patience, 120*time.Second) }
func (u Unlocking) settle() time.Duration   { return orDefault(u.Settle, 30*time.Second) }

func (u Unlocking) pauseTime() time.Duration { return orDefault(u.Pause, 3*time.Second) }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
