package vault

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/inventory"
)

// KeyPair is an ed25519 SSH key.
type KeyPair struct {
	Private inventory.Secret // OpenSSH PEM, as ssh-keygen writes it
	Public  string           // "ssh-ed25519 AAAA…", one line of authorized_keys without comment or newline
}

// Signer gives the private half to an SSH client or server.
func (k KeyPair) Signer() (ssh.Signer, error) {
	s, err := ssh.ParsePrivateKey(k.Private.Reveal())
	if err != nil {
		return nil, fmt.Errorf("private key of %s: %w", k.Public, err)
	}
	return s, nil
}

// PublicKey parses the public half, for pinning.
func (k KeyPair) PublicKey() (ssh.PublicKey, error) {
	p, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Public))
	return p, err
}

// storedKey is a KeyPair inside an encrypted file.
type storedKey struct {
	Private string `json:"private"`
	Public  string `json:"public"`
}

func (k storedKey) pair() KeyPair {
	return KeyPair{Private: inventory.SecretText(k.Private), Public: k.Public}
}

func newStoredKey(comment string) (storedKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return storedKey{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return storedKey{}, err
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return storedKey{}, err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
	return storedKey{Private: string(pem.EncodeToMemory(block)), Public: line}, nil
}
