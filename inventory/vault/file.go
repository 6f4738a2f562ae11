package vault

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"popfleet/internal/strictjson"
)

// sealer turns values into encrypted files and back. age to a public recipient says nothing about who wrote a file:
// whoever can write to the folder could forge pinned host keys. So the plaintext begins with a line
// "popfleet-vault/1 <hmac>" over the file's name and content, under a key derived from the identity.
type sealer struct {
	identity   *age.X25519Identity
	recipients []age.Recipient
	macKey     []byte
}

const sealMagic = "popfleet-vault/1 "

func newSealer(id *age.X25519Identity, to []age.Recipient) sealer {
	key, err := hkdf.Key(sha256.New, []byte(id.String()), nil, "popfleet vault file authentication v1", 32)
	if err != nil {
		panic("vault: hkdf of 32 bytes: " + err.Error()) // only for a length beyond 255 hashes
	}
	return sealer{identity: id, recipients: to, macKey: key}
}

func (s sealer) mac(name string, body []byte) string {
	m := hmac.New(sha256.New, s.macKey)
	fmt.Fprintf(m, "%d:%s:", len(name), name)
	m.Write(body)
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func (s sealer) seal(name string, body []byte) ([]byte, error) {
	plain := append([]byte(sealMagic+s.mac(name, body)+"\n"), body...)
	return encrypt(plain, s.recipients...)
}

func (s sealer) open(name string, sealed []byte) ([]byte, error) {
	plain, err := decrypt(sealed, s.identity)
	if err != nil {
		return nil, err
	}
	line, body, ok := bytes.Cut(plain, []byte("\n"))
	mac, magic := bytes.CutPrefix(line, []byte(sealMagic))
	if !ok || !magic || !hmac.Equal(mac, []byte(s.mac(name, body))) {
		return nil, fmt.Errorf("%w (restore it from a copy you trust)", ErrTampered)
	}
	return body, nil
}

// get reads the file called name (slash-separated, below the vault) into into; absent is fs.ErrNotExist.
func (v *Vault) get(name string, into any) error {
	sealed, err := readBounded(v.path(name))
	if err != nil {
		return err
	}
	body, err := v.files.open(name, sealed)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := strictjson.Decode(body, into); err != nil {
		return fmt.Errorf("%s:%w", name, err)
	}
	return nil
}

// put replaces the file called name.
func (v *Vault) put(name string, value any) error {
	sealed, err := v.sealValue(name, value)
	if err != nil {
		return err
	}
	return writeFile(v.path(name), sealed)
}

// putNew writes the file called name unless there is one; then it returns fs.ErrExist, and what is there stays.
func (v *Vault) putNew(name string, value any) error {
	sealed, err := v.sealValue(name, value)
	if err != nil {
		return err
	}
	return writeNewFile(v.path(name), sealed)
}

// once returns the value in the file called name, generating and writing it first when there is none. When another
// process wins the race, its value is returned.
func once[T any](v *Vault, name string, generate func() (T, error)) (T, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var have T
	err := v.get(name, &have)
	if !errors.Is(err, fs.ErrNotExist) {
		return have, err
	}
	fresh, err := generate()
	if err != nil {
		return have, fmt.Errorf("generate %s: %w", name, err)
	}
	err = v.putNew(name, fresh)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return have, err
	}
	return have, v.get(name, &have)
}

func (v *Vault) sealValue(name string, value any) ([]byte, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v.files.seal(name, body)
}

func (v *Vault) path(name string) string { return filepath.Join(v.dir, filepath.FromSlash(name)) }

func writeFile(path string, data []byte) error {
	return writeVia(path, data, os.Rename)
}

// writeNewFile never replaces: link(2) fails with EEXIST, whoever else is writing.
func writeNewFile(path string, data []byte) error {
	return writeVia(path, data, os.Link)
}

// writeVia writes data beside path, synced, and lets publish give it its name; then the directory is synced.
func writeVia(path string, data []byte, publish func(from, to string) error) error {
	dir := filepath.Dir(path)
	if err := mkdirSynced(dir); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after a rename
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := publish(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func mkdirSynced(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
