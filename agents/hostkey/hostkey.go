// Package hostkey looks after the two SSH host keys of a node: the system's and the initramfs', both ed25519, never the
// same. At installation they are made on the node; sealing replaces them by the vault's.
package hostkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
)

// Where the keys are kept, relative to the root. Both lie on the encrypted root; the initramfs' one also goes into the
// per-node part on /boot, in the clear, because it is needed before the root is open.
const (
	SystemFile    = "/etc/ssh/ssh_host_ed25519_key"
	InitramfsFile = "/etc/fleet/initramfs_host_ed25519_key"
)

// Key is a host key.
type Key struct{ Private ed25519.PrivateKey }

// Ensure reads the key at path, or makes one there.
func Ensure(path string) (Key, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return Parse(data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Key{}, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err
	}
	k := Key{private}
	return k, k.Save(path)
}

// Parse reads an unencrypted OpenSSH private key.
func Parse(data []byte) (Key, error) {
	raw, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("host key: %w", err)
	}
	p, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("host key: %T is not ed25519", raw)
	}
	return Key{*p}, nil
}

// Save writes the key and its public half, as sshd expects them.
func (k Key) Save(path string) error {
	block, err := ssh.MarshalPrivateKey(k.Private, "")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := bootchain.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return bootchain.WriteFile(path+".pub", []byte(k.Authorized()+"\n"), 0o644)
}

// Equal tells whether two keys are the same.
func (k Key) Equal(o Key) bool { return k.Private.Equal(o.Private) }

// Authorized is the public half as one line of authorized_keys without a comment.
func (k Key) Authorized() string {
	pub, err := ssh.NewPublicKey(k.Private.Public())
	if err != nil {
		panic("hostkey: an ed25519 key has no public half: " + err.Error())
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
}
