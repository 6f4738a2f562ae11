package board

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"strings"
)

const (
	idBytes   = 16
	idLetters = 26 // of idBytes in base32 without padding
	// MaxKey bounds an idempotency key, in bytes.
	MaxKey = 100
)

// NewID names a new document: 128 random bits, so that nodes need not ask each other. With a key the name follows from
// the key and the place (a request sent twice, because its answer was lost, is one document).
func NewID(place, key string) string {
	if key == "" {
		return strings.ToLower(rand.Text()[:idLetters])
	}
	sum := sha256.Sum256([]byte(place + "\x00" + key))
	return strings.ToLower(encoding.EncodeToString(sum[:idBytes]))
}

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// ValidID tells whether s could be a document's name.
func ValidID(s string) bool {
	if len(s) != idLetters {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '2' || r > '7') {
			return false
		}
	}
	return true
}

// CheckKey refuses keys that are too long or not printable ASCII. An empty key is none.
func CheckKey(key string) error {
	if len(key) > MaxKey || strings.ContainsFunc(key, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return errors.New("idempotency key: expected up to 100 printable ASCII characters")
	}
	return nil
}
