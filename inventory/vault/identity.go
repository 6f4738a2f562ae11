package vault

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"popfleet/inventory"
)

// maxFileBytes bounds what is read back; the largest file, a leaf with its key, is about 2 KiB.
const maxFileBytes = 1 << 20

func writeIdentity(dir string, id *age.X25519Identity, passphrase inventory.Secret, workFactor int) error {
	lock, err := age.NewScryptRecipient(string(passphrase.Reveal()))
	if err != nil {
		return err
	}
	lock.SetWorkFactor(cmp.Or(workFactor, defaultWorkFactor))
	sealed, err := encrypt([]byte(id.String()+"\n"), lock)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, identityFile), sealed); err != nil {
		return err
	}
	text := "# who can read the other files of this folder; one age recipient a line\n" + id.Recipient().String() + "\n"
	return writeFile(filepath.Join(dir, recipientsFile), []byte(text))
}

func readIdentity(path string, passphrase inventory.Secret) (*age.X25519Identity, error) {
	sealed, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (fleet init makes one)", ErrNoVault)
	}
	if err != nil {
		return nil, err
	}
	if passphrase.Empty() {
		return nil, fmt.Errorf("%w: it is empty", ErrWrongPassphrase)
	}
	lock, err := age.NewScryptIdentity(string(passphrase.Reveal()))
	if err != nil {
		return nil, err
	}
	plain, err := decrypt(sealed, lock)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("%w (it is the one given to fleet init; without it the vault cannot be read)", ErrWrongPassphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", identityFile, err)
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(plain)))
	if err != nil {
		// The parser's message may quote its input.
		return nil, fmt.Errorf("%s: content is not an age identity", identityFile)
	}
	return id, nil
}

// readRecipients refuses a list that leaves our own identity out: what is written next could not be read again.
func readRecipients(path string, own *age.X25519Identity) ([]age.Recipient, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	recipients, err := age.ParseRecipients(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", recipientsFile, err)
	}
	for _, r := range recipients {
		if x, ok := r.(*age.X25519Recipient); ok && x.String() == own.Recipient().String() {
			return recipients, nil
		}
	}
	return nil, fmt.Errorf("%s: the vault's own recipient %s is missing (put it back)", recipientsFile, own.Recipient())
}

func encrypt(plain []byte, to ...age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decrypt(sealed []byte, with age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), with)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxFileBytes))
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFileBytes)
	}
	return data, nil
}
