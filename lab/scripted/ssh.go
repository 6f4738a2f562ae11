package scripted

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// session is one SSH session with a command, on a link of the machine.
type session struct {
	ssh.Channel
	link    string
	command string
	key     string // fingerprint of the key that logged in
	conn    ssh.Conn
}

// exit ends the session with a status.
func (s *session) exit(status uint32) {
	// The peer may be gone; then there is nobody to tell.
	_ = s.CloseWrite()
	_, _ = s.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
	_ = s.Close()
}

func (s *session) say(text string) { fmt.Fprint(s.Stderr(), text+"\n") }

// serveSSH handshakes and serves sessions, one after the other or side by side, until the connection ends.
func (m *Machine) serveSSH(c net.Conn, link string, hostKeys []ssh.Signer, auth func(ssh.PublicKey) bool, handle func(*session)) {
	cfg := &ssh.ServerConfig{
		Config:        algorithms(link == "dropbear"),
		ServerVersion: map[bool]string{true: "SSH-2.0-dropbear_2022.83", false: "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3"}[link == "dropbear"],
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if !auth(k) {
				return nil, errors.New("key is not authorized")
			}
			return &ssh.Permissions{Extensions: map[string]string{"key": ssh.FingerprintSHA256(k)}}, nil
		},
	}
	for _, k := range hostKeys {
		cfg.AddHostKey(k)
	}
	_ = c.SetDeadline(time.Now().Add(patience)) // in memory: can't fail
	conn, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		m.b.opt.Log.Debug("ssh handshake", "machine", m.cfg.Load().Label, "link", link, "error", err)
		return
	}
	_ = c.SetDeadline(time.Time{})
	m.ledger.count(&m.ledger.dials, link)
	m.b.spawn(func() { keepalive(reqs) })
	for nc := range chans {
		if nc.ChannelType() != "session" {
			_ = nc.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		ch, rs, err := nc.Accept()
		if err != nil {
			break
		}
		s := &session{Channel: ch, link: link, key: conn.Permissions.Extensions["key"], conn: conn}
		m.b.spawn(func() { serveSession(s, rs, handle) })
	}
	_ = conn.Close()
}

// keepalive answers global requests as OpenSSH does: unknown ones with failure, which is what a keepalive wants.
func keepalive(reqs <-chan *ssh.Request) {
	for r := range reqs {
		if r.WantReply {
			_ = r.Reply(false, nil) // the connection ended
		}
	}
}

func serveSession(s *session, reqs <-chan *ssh.Request, handle func(*session)) {
	started := false
	done := make(chan struct{})
	for r := range reqs {
		ok := false
		switch r.Type {
		case "exec", "shell":
			if !started {
				var p struct{ Command string }
				if r.Type == "exec" && ssh.Unmarshal(r.Payload, &p) != nil {
					break
				}
				ok, started, s.command = true, true, p.Command
			}
		case "env", "pty-req":
			ok = true
		}
		if r.WantReply {
			_ = r.Reply(ok, nil) // the connection ended
		}
		if ok && started && (r.Type == "exec" || r.Type == "shell") {
			go func() { defer close(done); handle(s) }()
		}
	}
	if started {
		<-done
	}
}

func anyOf(lines []string) func(ssh.PublicKey) bool {
	var keys [][]byte
	for _, l := range lines {
		if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l)); err == nil {
			keys = append(keys, k.Marshal())
		}
	}
	return func(k ssh.PublicKey) bool {
		for _, have := range keys {
			if bytes.Equal(have, k.Marshal()) {
				return true
			}
		}
		return false
	}
}

// certifiedBy accepts user certificates for root that the CA signed and that are valid now.
func certifiedBy(ca string) func(ssh.PublicKey) bool {
	trusted := anyOf([]string{ca})
	return func(k ssh.PublicKey) bool {
		cert, ok := k.(*ssh.Certificate)
		if !ok || cert.CertType != ssh.UserCert || !trusted(cert.SignatureKey) {
			return false
		}
		check := ssh.CertChecker{IsUserAuthority: trusted}
		return check.CheckCert("root", cert) == nil
	}
}

func (m *Machine) serveRescue(bt *boot, c net.Conn) {
	m.serveSSH(c, "rescue", bt.hostKeys, anyOf(bt.given.AuthorizedKeys), func(s *session) { m.serveCommand(bt, s) })
}

func (m *Machine) serveFactory(bt *boot, c net.Conn) {
	m.serveSSH(c, "factory", bt.hostKeys, anyOf(bt.given.AuthorizedKeys), func(s *session) { m.serveCommand(bt, s) })
}

func (m *Machine) serveSystem(bt *boot, c net.Conn) {
	d := m.snapshot()
	m.serveSSH(c, "system", []ssh.Signer{d.SystemKey}, certifiedBy(d.UserCA), func(s *session) { m.serveCommand(bt, s) })
}

func (m *Machine) serveDropbear(bt *boot, c net.Conn) {
	d := m.snapshot()
	m.serveSSH(c, "dropbear", []ssh.Signer{d.InitramfsKey}, anyOf(d.mayUnlock()), func(s *session) { m.unlock(bt, s) })
}

// algorithms are what Debian 12's servers offer of those that our library knows: OpenSSH 9.2 has no ML-KEM yet, dropbear
// 2022.83 no AES-GCM.
func algorithms(dropbear bool) ssh.Config {
	c := ssh.Config{
		KeyExchanges: []string{ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256},
		Ciphers:      []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES256CTR, ssh.CipherAES128GCM, ssh.CipherAES256GCM},
	}
	if dropbear {
		c.Ciphers = c.Ciphers[:3]
	}
	return c
}
