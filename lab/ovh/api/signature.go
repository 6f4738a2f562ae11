package api

import (
	"crypto/sha1" //nolint:gosec // the provider's signature is defined on it
	"crypto/subtle"
	"encoding/hex"
	"strconv"
	"strings"
)

// Sign is the provider's signature: "$1$" and the SHA-1 of everything that must not be changed on the way.
func Sign(secret, consumer, method, url string, body []byte, at int64) string {
	sum := sha1.Sum([]byte(strings.Join([]string{secret, consumer, method, url, string(body), strconv.FormatInt(at, 10)}, "+")))
	return "$1$" + hex.EncodeToString(sum[:])
}

// Rule is what a consumer key may call. A star in Path stands for anything.
type Rule struct {
	Method string `json:"method"`
	Path   string `json:"path"`
}

// Same compares secrets without telling by its time where they differ.
func Same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// Granted says whether a call is among those that a consumer key was given.
func Granted(rules []Rule, method, path string) bool {
	for _, r := range rules {
		if strings.EqualFold(r.Method, method) && matches(r.Path, path) {
			return true
		}
	}
	return false
}

// matches compares a path with a pattern whose stars stand for anything.
func matches(pattern, path string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == path
	}
	rest, ok := strings.CutPrefix(path, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, p)
		if i < 0 {
			return false
		}
		rest = rest[i+len(p):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
