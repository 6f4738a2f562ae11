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
const rsaKept = 3

// hostKeys are what one boot of a rescue system identifies itself by.
type hostKeys struct {
	pem  [][]byte
	told []publicKey // as the web service publishes them
}

// KeyPool holds the RSA keys that take turns in quick tests: they are slow to make, and a test of hundreds of machines, or
// hundreds of tests, would do little else. Several simulators may share one. The zero value is ready.
type KeyPool struct {
	mu   sync.Mutex
	kept []*rsa.PrivateKey // guarded by mu
	turn int               // guarded by mu
}

// next makes keys until there are enough to take turns.
func (p *KeyPool) next() (*rsa.PrivateKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) < rsaKept {
		k, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, err
		}
		p.kept = append(p.kept, k)
		return k, nil
	}
	p.turn++
	return p.kept[p.turn%rsaKept], nil
}

// keyMaker makes host keys: fresh ones for every boot, but for RSA keys of a pool.
type keyMaker struct{ pool *KeyPool }

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
	if m.pool == nil {
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return m.pool.next()
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
