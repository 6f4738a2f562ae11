package robot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// rsaBits is less than a real rescue system's 3072, which takes a third of a second to make.
const rsaBits = 2048

// rsaKept is how many RSA keys take turns where they are used again.
const rsaKept = 8

// hostKeys are what one boot of a rescue system identifies itself by.
type hostKeys struct {
	pem  [][]byte
	told []publicKey // as the web service publishes them
}

// keyMaker makes host keys: fresh ones for every boot. Only RSA keys, which are slow to make, take turns when reuse is set:
// a test of hundreds of machines would do little else.
type keyMaker struct {
	reuse bool

	mu   sync.Mutex
	kept []*rsa.PrivateKey // guarded by mu
	turn int               // guarded by mu
}

func (m *keyMaker) fresh() (*hostKeys, error) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	rs, err := m.rsa()
	if err != nil {
		return nil, err
	}
	out := &hostKeys{}
	for _, k := range []crypto.PrivateKey{ec, ed, rs} {
		if err := out.add(k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *keyMaker) rsa() (*rsa.PrivateKey, error) {
	if !m.reuse {
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) < rsaKept {
		k, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, err
		}
		m.kept = append(m.kept, k)
		return k, nil
	}
	m.turn++
	return m.kept[m.turn%rsaKept], nil
}

func (h *hostKeys) add(k crypto.PrivateKey) error {
	block, err := ssh.MarshalPrivateKey(k, "")
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(k)
	if err != nil {
		return err
	}
	kind, size, _ := describe(signer.PublicKey())
	// SHA-256 in base64 without padding and without the prefix that ssh-keygen prints.
	print := strings.TrimPrefix(ssh.FingerprintSHA256(signer.PublicKey()), "SHA256:")
	h.pem = append(h.pem, pem.EncodeToMemory(block))
	h.told = append(h.told, publicKey{print, kind, size})
	return nil
}

func wireHostKeys(keys []publicKey) []object {
	out := []object{}
	for _, k := range keys {
		out = append(out, object{"key": k})
	}
	return out
}

func newPassword() string { return rand.Text()[:16] }
