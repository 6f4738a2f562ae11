package remote

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
)

// Door is what a port shows to someone who does not try to enter.
type Door struct {
	Open    bool          // TCP was accepted
	HostKey ssh.PublicKey // nil: no SSH server with an ed25519 key answered in time
	Why     error         // why it is closed, or why no key was seen
}

// Fingerprint is the key's SHA256:… form, or "".
func (d Door) Fingerprint() string {
	if d.HostKey == nil {
		return ""
	}
	return ssh.FingerprintSHA256(d.HostKey)
}

var errSeen = errors.New("host key seen")

const lookTimeout = 10 * time.Second

// Look connects to addr, reads the SSH host key and leaves before authentication, so that it costs a locked machine
// none of its three tries (facts: cryptroot-unlock counts every login with the unlock key). Bounded by ctx, and by ten
// seconds when ctx has no deadline: dropbear holds only five unauthenticated connections of one address.
func Look(ctx context.Context, d dial.Dialer, addr string) Door {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookTimeout)
		defer cancel()
	}
	raw, err := dialTCP(ctx, d, addr)
	if err != nil {
		return Door{Why: err}
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	return knock(ctx, raw, addr)
}

func knock(ctx context.Context, raw net.Conn, addr string) Door {
	door := Door{Open: true}
	_, _, _, err := ssh.NewClientConn(raw, addr, &ssh.ClientConfig{
		User:              "root",
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			door.HostKey = key
			return errSeen
		},
	})
	if err == nil {
		panic("remote: a handshake went on although its host key was refused")
	}
	if door.HostKey == nil {
		door.Why = err
		if ctx.Err() != nil {
			door.Why = context.Cause(ctx)
		}
	}
	return door
}
