package front

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
)

// DefaultIterations is what MongoDB's servers use for SCRAM-SHA-256; drivers refuse fewer than 4096.
const (
	DefaultIterations = 15_000
	minIterations     = 4096
	maxIterations     = 10_000_000
	saltBytes         = 28
)

const mechanism = "SCRAM-SHA-256"

// Credential is what a server stores to check a password without having it. It can't be printed: who reads it can
// guess passwords at leisure.
type Credential struct{ stored scram.StoredCredentials }

// NewCredential derives one from a password, with a fresh salt.
func NewCredential(user, password string, iterations int) (Credential, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		return Credential{}, errors.New("password has characters that SASLprep forbids") // the cause would quote it
	}
	client, err := scram.SHA256.NewClientUnprepped(user, prepared, "")
	if err != nil {
		return Credential{}, fmt.Errorf("derive credential: %w", err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return Credential{}, fmt.Errorf("derive credential: %w", err)
	}
	c := Credential{stored}
	return c, c.validate()
}

// Text is the form to keep: SCRAM-SHA-256$iterations:salt$stored key:server key, in base64 (the form PostgreSQL keeps).
func (c Credential) Text() string {
	b := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", mechanism, c.stored.Iters, b([]byte(c.stored.Salt)), b(c.stored.StoredKey), b(c.stored.ServerKey))
}

// UnmarshalText reads what Text wrote.
func (c *Credential) UnmarshalText(text []byte) error {
	errForm := errors.New("credential: expected SCRAM-SHA-256$iterations:salt$stored:server; a plain password is never kept")
	part := strings.Split(string(text), "$")
	if len(part) != 3 || part[0] != mechanism {
		return errForm
	}
	iterations, salt, ok := strings.Cut(part[1], ":")
	storedKey, serverKey, ok2 := strings.Cut(part[2], ":")
	n, err := strconv.Atoi(iterations)
	if !ok || !ok2 || err != nil {
		return errForm
	}
	var raw [3][]byte
	for i, s := range []string{salt, storedKey, serverKey} {
		if raw[i], err = base64.StdEncoding.DecodeString(s); err != nil {
			return errForm
		}
	}
	read := Credential{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(raw[0]), Iters: n}, StoredKey: raw[1], ServerKey: raw[2]}}
	if err := read.validate(); err != nil {
		return err
	}
	*c = read
	return nil
}

func (c Credential) validate() error {
	s := c.stored
	switch {
	case s.Iters < minIterations || s.Iters > maxIterations:
		return fmt.Errorf("credential of %d iterations; expected %d to %d", s.Iters, minIterations, maxIterations)
	case len(s.Salt) < 16 || len(s.StoredKey) != sha256.Size || len(s.ServerKey) != sha256.Size:
		return errors.New("credential: expected a salt of 16 bytes at least and two keys of 32")
	}
	return nil
}

const redacted = "[redacted]"

func (c Credential) String() string               { return redacted }
func (c Credential) GoString() string             { return redacted }
func (c Credential) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (c Credential) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (c Credential) MarshalText() ([]byte, error) { return []byte(redacted), nil }
