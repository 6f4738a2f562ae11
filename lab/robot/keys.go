package robot

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// publicKey is what the web service tells of a key without giving it away.
type publicKey struct {
	Fingerprint string `json:"fingerprint"`
	Type        string `json:"type"` // RSA | ECDSA | ED25519
	Size        int    `json:"size"`
}

// sshKey is a key in the account, or a copy of one as it was when it was used.
type sshKey struct {
	publicKey
	Name    string    `json:"name"`
	Data    string    `json:"data"`
	Created time.Time `json:"created"`
}

// describe tells kind and size; false for kinds that the provider does not know.
func describe(k ssh.PublicKey) (kind string, size int, ok bool) {
	c, _ := k.(ssh.CryptoPublicKey)
	if c == nil {
		return "", 0, false
	}
	switch p := c.CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		return "RSA", p.N.BitLen(), true
	case *ecdsa.PublicKey:
		return "ECDSA", p.Curve.Params().BitSize, true
	}
	return "ED25519", 256, k.Type() == ssh.KeyAlgoED25519
}

// parseKey reads one key in OpenSSH's form. The provider's other form, RFC 4716, is not taken.
func parseKey(name, data string) (*sshKey, *apiError) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(data))
	if err != nil || len(options) > 0 || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, invalid("data")
	}
	kind, size, ok := describe(key)
	if !ok {
		return nil, invalid("data")
	}
	return &sshKey{
		publicKey: publicKey{ssh.FingerprintLegacyMD5(key), kind, size}, Name: name,
		Data: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), Created: time.Now().UTC(),
	}, nil
}

// reference is a key as boot configurations and orders show it: without its data.
func reference(k sshKey) object {
	return object{"key": object{"name": k.Name, "fingerprint": k.Fingerprint, "type": k.Type, "size": k.Size}}
}

func references(keys []sshKey) []object {
	out := []object{}
	for _, k := range keys {
		out = append(out, reference(k))
	}
	return out
}

func (r *Robot) wireKey(k *sshKey) object {
	return object{"key": object{
		"name": k.Name, "fingerprint": k.Fingerprint, "type": k.Type, "size": k.Size, "data": k.Data, "created_at": r.local(k.Created),
	}}
}

// pick finds keys by fingerprint; r.mu is held.
func (r *Robot) pick(fingerprints []string) ([]sshKey, *apiError) {
	var out []sshKey
	for _, f := range fingerprints {
		k := r.state.Keys[f]
		if k == nil {
			return nil, invalid("authorized_key")
		}
		out = append(out, *k)
	}
	return out, nil
}

func authorized(keys []sshKey) []string {
	var out []string
	for _, k := range keys {
		out = append(out, k.Data)
	}
	return out
}

func (r *Robot) listKeys(*request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.state.Keys) == 0 {
		return nil, notFound("NOT_FOUND", "No keys found")
	}
	out := []object{}
	for _, f := range slices.Sorted(maps.Keys(r.state.Keys)) {
		out = append(out, r.wireKey(r.state.Keys[f]))
	}
	return out, nil
}

func keyName(q *request) (string, *apiError) {
	name := q.form.Get("name")
	if len(name) > 255 {
		return "", invalid("name")
	}
	return name, nil
}

func (r *Robot) createKey(q *request) (any, error) {
	name, e := keyName(q)
	if e != nil {
		return nil, e
	}
	k, e := parseKey(name, q.form.Get("data"))
	if e != nil {
		return nil, e
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Keys[k.Fingerprint] != nil {
		return nil, fail(http.StatusConflict, "KEY_ALREADY_EXISTS", "The supplied key already exists")
	}
	r.state.Keys[k.Fingerprint] = k
	r.save()
	return reply{http.StatusCreated, r.wireKey(k)}, nil
}

// key finds the key of the call; r.mu is held.
func (r *Robot) key(q *request) (*sshKey, error) {
	if k := r.state.Keys[q.PathValue("fingerprint")]; k != nil {
		return k, nil
	}
	return nil, notFound("NOT_FOUND", "Key not found")
}

func (r *Robot) getKey(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.key(q)
	if err != nil {
		return nil, err
	}
	return r.wireKey(k), nil
}

func (r *Robot) renameKey(q *request) (any, error) {
	name, e := keyName(q)
	if e != nil {
		return nil, e
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.key(q)
	if err != nil {
		return nil, err
	}
	k.Name = name
	r.save()
	return r.wireKey(k), nil
}

func (r *Robot) deleteKey(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.key(q)
	if err != nil {
		return nil, err
	}
	delete(r.state.Keys, k.Fingerprint)
	r.save()
	return reply{http.StatusOK, nil}, nil
}
