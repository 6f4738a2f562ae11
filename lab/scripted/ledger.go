package scripted

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"
)

// Ledger is what a machine saw. Methods are safe for concurrent use; what they return are copies.
type Ledger struct {
	mu       sync.Mutex
	wipes    map[string]int    // by disk serial
	installs []string          // run ids of completed installs
	unlocks  []UnlockAttempt   // every connection to the forced command
	boots    []Boot            // every start
	applies  int               // applies that changed something
	plans    int               // plans and applies asked for
	sealed   int               // seals that ran
	slots    []string          // last wipe of key slots: serials
	agents   map[string]int    // uploads of the agent, by digest
	passed   map[string]int    // blobs passed on to other machines, by digest
	direct   map[string]int    // blobs that came from the operator, by digest
	dials    map[string]int    // SSH handshakes completed, by link
	heard    map[string][]byte // what arrived, by link: rescue, dropbear, system, factory
}

// UnlockAttempt is one connection to cryptroot-unlock.
type UnlockAttempt struct {
	Time       time.Time
	Key        string // fingerprint of the SSH key
	Passphrase string // SHA-256 hex of what came, "" for nothing
	Outcome    string // opened, wrong, empty, too-many, too-early, timeout, busy, opened-before
	Burnt      bool   // it reached cryptroot-unlock and used up a try, the one that opened included
}

// Boot is one start.
type Boot struct {
	Time  time.Time
	Stage string // what it came to: rescue, locked, factory, dead
	ID    string
}

func (l *Ledger) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *Ledger) booted(stage, id string) {
	l.do(func() { l.boots = append(l.boots, Boot{time.Now(), stage, id}) })
}

func (l *Ledger) wiped(serial string) {
	l.do(func() {
		if l.wipes == nil {
			l.wipes = map[string]int{}
		}
		l.wipes[serial]++
	})
}

func (l *Ledger) unlock(a UnlockAttempt) { l.do(func() { l.unlocks = append(l.unlocks, a) }) }

func (l *Ledger) count(m *map[string]int, key string) {
	l.do(func() {
		if *m == nil {
			*m = map[string]int{}
		}
		(*m)[key]++
	})
}

// maxHeardBytes bounds what is kept of one link; later bytes are dropped.
const maxHeardBytes = 4 << 20

func (l *Ledger) hear(link string, p []byte) {
	l.do(func() {
		if l.heard == nil {
			l.heard = map[string][]byte{}
		}
		if room := maxHeardBytes - len(l.heard[link]); room > 0 {
			l.heard[link] = append(l.heard[link], p[:min(room, len(p))]...)
		}
	})
}

// Saw says whether a secret arrived over a link ("" is any), raw, in base64 or in hex.
func (l *Ledger) Saw(link string, secret []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, data := range l.heard {
		if (link == "" || link == name) && Contains(data, secret) {
			return true
		}
	}
	return false
}

// Contains says whether data holds the secret raw, in base64 or in hex.
func Contains(data, secret []byte) bool {
	if len(secret) == 0 {
		return false
	}
	forms := [][]byte{secret, []byte(base64.StdEncoding.EncodeToString(secret)), []byte(base64.RawStdEncoding.EncodeToString(secret)),
		[]byte(base64.RawURLEncoding.EncodeToString(secret)), []byte(hex.EncodeToString(secret))}
	return slices.ContainsFunc(forms, func(f []byte) bool { return bytes.Contains(data, f) })
}

// Wipes says how often each disk was wiped, by serial.
func (l *Ledger) Wipes() (out map[string]int) { l.do(func() { out = maps.Clone(l.wipes) }); return out }

// Installs lists the run ids of completed installs.
func (l *Ledger) Installs() (out []string) {
	l.do(func() { out = slices.Clone(l.installs) })
	return out
}

// Unlocks lists every connection to the forced command, in order.
func (l *Ledger) Unlocks() (out []UnlockAttempt) {
	l.do(func() { out = slices.Clone(l.unlocks) })
	return out
}

// Boots lists every start, in order.
func (l *Ledger) Boots() (out []Boot) { l.do(func() { out = slices.Clone(l.boots) }); return out }

// Applies counts applies that changed something; Plans counts plan and apply requests; Seals counts seal requests.
func (l *Ledger) Applies() (n int) { l.do(func() { n = l.applies }); return n }

// Plans counts plan and apply requests.
func (l *Ledger) Plans() (n int) { l.do(func() { n = l.plans }); return n }

// Seals counts seal requests that were carried out.
func (l *Ledger) Seals() (n int) { l.do(func() { n = l.sealed }); return n }

// KeysWiped lists the disks whose key slots were destroyed by a wipe request.
func (l *Ledger) KeysWiped() (out []string) {
	l.do(func() { out = slices.Clone(l.slots) })
	return out
}

// AgentUploads counts how often an agent binary arrived, by digest.
func (l *Ledger) AgentUploads() (out map[string]int) {
	l.do(func() { out = maps.Clone(l.agents) })
	return out
}

// Logins counts completed SSH handshakes, by link.
func (l *Ledger) Logins() (out map[string]int) {
	l.do(func() { out = maps.Clone(l.dials) })
	return out
}

// Digest is how the ledger names a passphrase.
func Digest(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}
