package inventory

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// Redacted is what every printer, logger and marshaller shows in place of a secret.
const Redacted = "[redacted]"

var errSecretLeaves = errors.New("a secret is not serialised: reveal it where it is used")

// Secret holds bytes that must not be printed, logged or marshalled. Only [Secret.Reveal] gives them out.
//
// The bytes sit in a closure on purpose: fmt cannot call methods of a value in an unexported field and prints its insides
// by reflection, following a pointer when the verb is wrong; of a function it shows the address. Two secrets compare by
// [Secret.Equal] only.
type Secret struct{ held func() []byte }

// NewSecret holds a copy of b.
func NewSecret(b []byte) Secret {
	own := bytes.Clone(b)
	return Secret{func() []byte { return bytes.Clone(own) }}
}

// SecretText holds the bytes of s.
func SecretText(s string) Secret { return NewSecret([]byte(s)) }

// Reveal returns a copy of the bytes, nil for the zero Secret. The caller keeps it out of logs, arguments and files.
func (s Secret) Reveal() []byte {
	if s.held == nil {
		return nil
	}
	return s.held()
}

// Empty reports whether nothing is held.
func (s Secret) Empty() bool { return s.held == nil || len(s.held()) == 0 }

// Equal compares in constant time for equal lengths.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), other.Reveal()) == 1
}

// String returns [Redacted].
func (s Secret) String() string { return Redacted }

// GoString returns [Redacted].
func (s Secret) GoString() string { return Redacted }

// Format writes [Redacted] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue gives slog [Redacted].
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON writes [Redacted], so a journal entry that contains a secret is still an entry.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText writes [Redacted].
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalYAML writes [Redacted].
func (s Secret) MarshalYAML() (any, error) { return Redacted, nil }

// GobEncode refuses: gob is for machines, and a machine that reads "[redacted]" would take it for the secret.
func (s Secret) GobEncode() ([]byte, error) { return nil, errSecretLeaves }

// MarshalBinary refuses, for the same reason.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, errSecretLeaves }
