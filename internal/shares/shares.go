// Package shares cuts the key that peers open a node with into shares, says of each what it has to be without saying
// what it is, and puts enough of them together again. docs/protocols/peer-unlock.md draws the texts; the initramfs reads
// the same ones by a shell script (provision/initramfs), the scripted machines by code of their own.
//
// A share alone, and any number below the threshold, is independent of the key. Commitments are plain SHA-256: what they
// hide is 32 random bytes, which no search finds. Nothing here talks to anybody or writes a file.
package shares

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// KeyBytes is the size of a peer key. Its passphrase is these bytes in hex: a shell can hold it.
const KeyBytes = 32

const maxGeneration = 1_000_000_000

// Generation is one cutting of one node's peer key. All of it is secret.
type Generation struct {
	Node      string
	Number    int
	Threshold int
	Key       string  // the passphrase of the peers' key slot
	Shares    []Share // in order of Index
}

// Share is what one peer holds.
type Share struct {
	Peer  string
	Index int
	Line  string // exactly what the peer sends
}

// New makes a key and cuts it so that any threshold of peers can open node. random is nil outside of tests.
func New(node string, number, threshold int, peers []string, random io.Reader) (Generation, error) {
	if random == nil {
		random = rand.Reader
	}
	g := Generation{Node: node, Number: number, Threshold: threshold}
	if err := checkHead(node, number, peers); err != nil {
		return g, err
	}
	key := make([]byte, KeyBytes)
	if _, err := io.ReadFull(random, key); err != nil {
		return g, fmt.Errorf("random key: %w", err)
	}
	points, err := split(key, threshold, len(peers), random)
	if err != nil {
		return g, err
	}
	g.Key = hex.EncodeToString(key)
	for i, p := range points {
		g.Shares = append(g.Shares, Share{Peer: peers[i], Index: i + 1, Line: line(node, number, p)})
	}
	return g, nil
}

func checkHead(node string, number int, peers []string) error {
	if number < 1 || number > maxGeneration {
		return fmt.Errorf("generation %d", number)
	}
	for i, name := range append([]string{node}, peers...) {
		if !validName(name) {
			return fmt.Errorf("node name %q", name)
		}
		if i > 0 && (name == node || slices.Contains(peers[:i-1], name)) {
			return fmt.Errorf("peer %q of node %s is there twice, or is the node itself", name, node)
		}
	}
	return nil
}

// validName is a DNS label, as every node's name is.
func validName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool { return !(c == '-' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9') })
}

const (
	shareMagic = "popfleet-share 1"
	keyMagic   = "popfleet-peer-key 1"
	maxLine    = 256
)

func line(node string, number int, p point) string {
	return fmt.Sprintf("%s %s %d %d %x", shareMagic, node, number, p.x, p.y)
}

// Head is what a share says of itself besides the secret.
type Head struct {
	Node       string
	Generation int
	Index      int
}

// ParseShare reads a share's line. Only the one spelling that New makes is accepted.
func ParseShare(text string) (Head, error) {
	h, _, err := parseShare(text)
	return h, err
}

var errNoShare = errors.New("not a share") // never quotes what may be one

func parseShare(text string) (Head, point, error) {
	f := strings.Split(text, " ")
	if len(text) > maxLine || len(f) != 6 || f[0]+" "+f[1] != shareMagic || !validName(f[2]) {
		return Head{}, point{}, errNoShare
	}
	generation, err1 := number(f[3], maxGeneration)
	index, err2 := number(f[4], MaxShares)
	y, err3 := hex.DecodeString(f[5])
	if err1 != nil || err2 != nil || err3 != nil || len(y) != KeyBytes || strings.ToLower(f[5]) != f[5] {
		return Head{}, point{}, errNoShare
	}
	return Head{f[2], generation, index}, point{byte(index), y}, nil
}

// number is a positive decimal without leading zeros or sign.
func number(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != s {
		return 0, errNoShare
	}
	return n, nil
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

func keySum(node string, number int, key string) string {
	return sum(fmt.Sprintf("%s %s %d %s", keyMagic, node, number, key))
}

// Combine puts the shares of one generation together and returns the passphrase, if it is the committed one.
func Combine(c Commitment, node string, lines []string) (string, error) {
	var points []point
	for _, l := range lines {
		h, p, err := parseShare(l)
		if err != nil {
			return "", err
		}
		if h.Node != node || h.Generation != c.Generation {
			return "", fmt.Errorf("a share of node %s, generation %d", h.Node, h.Generation)
		}
		points = append(points, p)
	}
	if len(points) < c.Threshold {
		return "", fmt.Errorf("%d shares, %d are needed", len(points), c.Threshold)
	}
	key, err := combine(points)
	if err != nil {
		return "", err
	}
	text := hex.EncodeToString(key)
	if keySum(node, c.Generation, text) != c.Key {
		return "", errors.New("the shares do not make the key that was committed to")
	}
	return text, nil
}
