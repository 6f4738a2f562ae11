package peerunlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
)

// Outcome is what became of one share.
type Outcome string

// The outcomes. After Refused the same share is not sent again.
const (
	Absent  Outcome = "not locked"     // nobody answers on the port of the initramfs
	Kept    Outcome = "kept"           // waits for others' shares
	Opened  Outcome = "opened"         // it was enough
	Later   Outcome = "asked to wait"  // another unlocker is at it, or the disk is not there yet
	Lost    Outcome = "lost"           // the connection ended without a word: perhaps it is booting
	Refused Outcome = "refused"        // wrong, stale, dead, or nobody lets us in
	Strange Outcome = "not the pinned" // another host key: nothing was sent
)

const maxWords = 4 << 10

// push hands the share over once. Words are the ward's own.
func push(ctx context.Context, d dial.Dialer, login ssh.Signer, w Ward) (Outcome, string) {
	pin, err := w.pin()
	if err != nil {
		return Refused, err.Error()
	}
	raw, err := d.DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return Absent, ""
	}
	defer raw.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	client, outcome, words := dialIn(raw, login, w, pin)
	if client == nil {
		return outcome, words
	}
	defer client.Close()
	return handOver(client, w.Share)
}

var errOtherKey = errors.New("another host key")

func dialIn(raw net.Conn, login ssh.Signer, w Ward, pin ssh.PublicKey) (*ssh.Client, Outcome, string) {
	strange := false
	cfg := &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, HostKeyAlgorithms: []string{pin.Type()},
		// Called inside the key exchange: nothing of ours has left by then.
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			if !bytes.Equal(k.Marshal(), pin.Marshal()) {
				strange = true
				return errOtherKey
			}
			return nil
		}}
	conn, chans, reqs, err := ssh.NewClientConn(raw, w.Address, cfg)
	switch {
	case strange || err != nil && strings.Contains(err.Error(), "no common algorithm for host key"):
		return nil, Strange, "the host key is not the one of its initramfs"
	case err != nil && strings.Contains(err.Error(), "unable to authenticate"):
		return nil, Refused, "it does not let this node in"
	case err != nil:
		return nil, Lost, err.Error()
	}
	return ssh.NewClient(conn, chans, reqs), "", ""
}

func handOver(client *ssh.Client, share string) (Outcome, string) {
	s, err := client.NewSession()
	if err != nil {
		return Lost, err.Error()
	}
	defer s.Close()
	said := &tail{}
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader(share), said, said
	err = s.Run("share") // the forced command runs whatever is asked for
	return outcome(err, said.String()), said.String()
}

// outcome reads what the door of provision/initramfs says.
func outcome(err error, words string) Outcome {
	has := func(text string) bool { return strings.Contains(words, text) }
	var exit *ssh.ExitError
	switch {
	case has("set up successfully"):
		return Opened
	case has("fleet: share kept"):
		return Kept
	case has("fleet: wrong"), has("fleet: stale share"), has("fleet: dead shares"):
		return Refused
	case has("fleet: busy"), has("ry again later"), has("Timeout reached while waiting for askpass"), has("fleet: no key came"):
		return Later
	case err == nil: // it ended well, and its last words were lost
		return Opened
	case errors.As(err, &exit) && exit.ExitStatus() != 255 && exit.Signal() == "":
		return Refused
	}
	return Lost
}

// tail keeps the beginning of what is said, on one line, without what could move a terminal's cursor.
type tail struct {
	mu sync.Mutex // both streams are copied side by side
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := maxWords - t.b.Len(); room > 0 {
		t.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Map(func(r rune) rune {
		if r == '\n' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r == '�' {
			return -1
		}
		return r
	}, t.b.String())
	return strings.TrimSpace(text)
}

var _ io.Writer = (*tail)(nil)

func (o Outcome) log(w Ward, words string) []any {
	return []any{"ward", w.Node, "generation", w.generation(), "outcome", string(o), "words", fmt.Sprintf("%.300s", words)}
}

// pushTimeout bounds one hand-over: the last one derives the key and opens the disk.
const pushTimeout = 90 * time.Second
