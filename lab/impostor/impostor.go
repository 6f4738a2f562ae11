// Package impostor is a machine that answers in the place of another: it has a host key of its own, lets anyone in with
// any key, certificate or password, runs nothing, and keeps all it is told. A client that talks to it beyond the key
// exchange has failed; tests look here for what leaked.
package impostor

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Impostor is one such machine. Methods are safe for concurrent use.
type Impostor struct {
	key ssh.Signer

	mu       sync.Mutex
	contacts int    // guarded by mu: connections
	logins   int    // guarded by mu: clients that went past the host key
	heard    []byte // guarded by mu: passwords, commands and input
}

// New makes one with a fresh host key.
func New() (*Impostor, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	return &Impostor{key: key}, nil
}

// HostKey is what it shows.
func (i *Impostor) HostKey() ssh.PublicKey { return i.key.PublicKey() }

// Contacts counts connections; Logins counts clients that authenticated in spite of the wrong host key.
func (i *Impostor) Contacts() int { i.mu.Lock(); defer i.mu.Unlock(); return i.contacts }

// Logins counts clients that authenticated in spite of the wrong host key.
func (i *Impostor) Logins() int { i.mu.Lock(); defer i.mu.Unlock(); return i.logins }

// Heard is all that came after a login: passwords, commands, input.
func (i *Impostor) Heard() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]byte(nil), i.heard...)
}

func (i *Impostor) hear(p []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.heard) < 1<<20 {
		i.heard = append(i.heard, p...)
	}
}

// Serve plays the machine on c until the connection ends, and closes it.
func (i *Impostor) Serve(c net.Conn) {
	defer c.Close()
	i.mu.Lock()
	i.contacts++
	i.mu.Unlock()
	cfg := &ssh.ServerConfig{
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil },
		PasswordCallback: func(_ ssh.ConnMetadata, pw []byte) (*ssh.Permissions, error) {
			i.hear(pw)
			return nil, nil
		},
	}
	cfg.AddHostKey(i.key)
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute)) // a connection that can't be timed out ends by itself
	conn, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return // the client turned away: as it should
	}
	i.mu.Lock()
	i.logins++
	i.mu.Unlock()
	var work sync.WaitGroup
	defer work.Wait()
	defer conn.Close()
	work.Go(func() { ssh.DiscardRequests(reqs) })
	for nc := range chans {
		ch, rs, err := nc.Accept()
		if err != nil {
			return
		}
		work.Go(func() { i.listen(ch) })
		work.Go(func() {
			for r := range rs {
				i.hear(r.Payload)
				if r.WantReply {
					_ = r.Reply(true, nil) // the connection ended
				}
			}
		})
	}
}

func (i *Impostor) listen(ch ssh.Channel) {
	buf := make([]byte, 32<<10)
	for {
		n, err := ch.Read(buf)
		i.hear(buf[:n])
		if err != nil {
			if err == io.EOF {
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{0}))
			}
			_ = ch.Close() // the connection ended
			return
		}
	}
}
