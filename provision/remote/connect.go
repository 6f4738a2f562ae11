// Package remote is the operator's end of every SSH link to a machine: the connection with its host key decided before
// anything else (Connect), the look that never logs in (Look), the exchange with fleet-agent (Exchange,
// docs/protocols/exchange.md) and the key handed to a locked machine (SendKey, Unlock).
//
// It never takes a host key in silence: a Target without Trust is refused, a key other than the pinned one is a
// *HostKeyError raised inside the key exchange, before any user name, signature or secret is sent. It never puts
// anything but an agent's digest and size into a shell. Every link dies inside its deadline: dial and handshake have
// one, and afterwards a peer that stays silent for Keepalive.DeadAfter is cut off.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
)

// Trust says which host key is believed. The zero value believes none.
type Trust struct {
	pins     []ssh.PublicKey
	prints   []string
	firstUse bool
}

// Pinned trusts exactly these keys.
func Pinned(keys ...ssh.PublicKey) Trust { return Trust{pins: keys} }

// PinnedByFingerprint trusts the keys with these fingerprints (SHA256:…), for a provider that publishes no more of them.
func PinnedByFingerprint(prints ...string) Trust { return Trust{prints: prints} }

// FirstUse takes whatever key answers. The caller must journal Conn.HostKey as tofu, say so aloud, and send nothing
// over the link that outlives an installation.
func FirstUse() Trust { return Trust{firstUse: true} }

// Target is one SSH server and how to meet it.
type Target struct {
	Addr      string // host:port
	User      string // default root
	Trust     Trust
	Auth      ssh.Signer    // the fleet's key, or a certificate signer
	Timeout   time.Duration // of dial and handshake together; default 30s
	Keepalive Keepalive
}

// Conn is an authenticated connection. Close it; losing it closes it too.
type Conn struct {
	client  *ssh.Client
	link    *link
	hostKey ssh.PublicKey
	stop    context.CancelFunc
	done    chan struct{}
}

const defaultTimeout = 30 * time.Second

// Connect dials, checks the host key and logs in. Errors: ErrUnreachable, *HostKeyError, *AuthError, or what else went
// wrong on the way.
func Connect(ctx context.Context, d dial.Dialer, t Target) (*Conn, error) {
	if !t.Trust.firstUse && len(t.Trust.pins)+len(t.Trust.prints) == 0 {
		return nil, fmt.Errorf("connect to %s: no host key to trust was given", t.Addr)
	}
	if t.Auth == nil {
		return nil, fmt.Errorf("connect to %s: no key to log in with was given", t.Addr)
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(t.Timeout, defaultTimeout))
	defer cancel()
	raw, err := dialTCP(ctx, d, t.Addr)
	if err != nil {
		return nil, err
	}
	l := watch(raw)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	judge := &judge{addr: t.Addr, trust: t.Trust}
	client, err := handshake(l, t, judge)
	if !stop() || err != nil {
		l.Close()
		return nil, judge.explain(ctx, t, err)
	}
	return keep(client, l, judge.seen, t.Keepalive), nil
}

func dialTCP(ctx context.Context, d dial.Dialer, addr string) (net.Conn, error) {
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", addr, ErrUnreachable, err)
	}
	return raw, nil
}

func handshake(l net.Conn, t Target, j *judge) (*ssh.Client, error) {
	user := t.User
	if user == "" {
		user = "root"
	}
	conn, chans, reqs, err := ssh.NewClientConn(l, t.Addr, &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(t.Auth)},
		HostKeyCallback:   j.callback,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(conn, chans, reqs), nil
}

// keep starts the watcher that owns the connection's liveness until Close.
func keep(client *ssh.Client, l *link, key ssh.PublicKey, k Keepalive) *Conn {
	ctx, stop := context.WithCancel(context.Background())
	c := &Conn{client: client, link: l, hostKey: key, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		l.keepAlive(ctx, k, func() {
			// The answer itself does not matter (dropbear refuses the request): any byte proves life.
			_, _, _ = client.SendRequest("keepalive@openssh.com", true, nil)
		})
	}()
	return c
}

// HostKey is the key the server proved to hold.
func (c *Conn) HostKey() ssh.PublicKey { return c.hostKey }

// Client gives the SSH connection itself, for an operator's interactive session.
func (c *Conn) Client() *ssh.Client { return c.client }

// Close ends the connection and waits for its watcher.
func (c *Conn) Close() error {
	c.stop()
	err := c.client.Close()
	c.link.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// cause prefers why the watcher cut the link over the error that the cut then made elsewhere.
func (c *Conn) cause(err error) error {
	if dead := c.link.dead(); dead != nil {
		return dead
	}
	return err
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}

// authRefused recognises x/crypto's refusal of every method offered; it has no type of its own.
func authRefused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "unable to authenticate")
}
