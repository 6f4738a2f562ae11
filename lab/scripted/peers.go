package scripted

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The peers' key, read from docs/protocols/peer-unlock.md and not from the operator's types.

type peerKeySpec struct {
	Version     int         `json:"version"`
	Node        string      `json:"node"`
	Step        string      `json:"step"`
	MachineKey  []byte      `json:"machine_key"`
	Key         []byte      `json:"key"`
	Current     []byte      `json:"current"`
	Commitments string      `json:"commitments"`
	Logins      []peerLogin `json:"logins"`
}

type peerLogin struct {
	Node string `json:"node"`
	Key  string `json:"key"`
}

type peerKeyed struct {
	Slots        []string `json:"slots"`
	InitramfsSHA string   `json:"initramfs_sha256"`
}

// peerKey puts the peers' key into a slot of its own, or leaves only the one that is named.
func (x *exchange) peerKey(r peerKeySpec) (any, error) {
	if err := x.booted(r.Node); err != nil {
		return nil, err
	}
	if r.Version != 1 || r.Step != "add" && r.Step != "retire" || (len(r.Key) == 0) != (r.Commitments == "") || r.Step == "add" && len(r.Key) != 64 {
		return nil, &remoteError{"bad_spec", "peer-key spec: not understood", ""}
	}
	on := x.m.snapshot()
	if !has(on.Slots, "machine", r.MachineKey) {
		return nil, &remoteError{"stale_key", "the machine key given opens no machine slot", ""}
	}
	if r.Step == "retire" && len(r.Key) > 0 && !has(on.Slots, "peers", r.Key) {
		return nil, &remoteError{"stale_key", "the peers' key given opens no peers' slot", ""}
	}
	if !x.step(r.Step+" peers' key") || x.lostPower(r.Step) {
		return nil, errNoPower
	}
	out := x.changePeers(r)
	if x.lostPower(map[string]string{"add": "added", "retire": "retired"}[r.Step]) {
		return nil, errNoPower
	}
	return out, nil
}

func has(slots []slot, kind string, secret []byte) bool {
	for _, s := range slots {
		if s.kind == kind && bytes.Equal(s.secret, secret) {
			return true
		}
	}
	return false
}

func (x *exchange) changePeers(r peerKeySpec) peerKeyed {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on := x.m.installed()
	var kept []slot
	for _, s := range on.Slots {
		stays := r.Step == "add" && (bytes.Equal(s.secret, r.Current) || len(r.Current) == 0)
		if s.kind != "peers" || stays || bytes.Equal(s.secret, r.Key) {
			kept = append(kept, s)
		}
	}
	if len(r.Key) > 0 && !has(kept, "peers", r.Key) {
		kept = append(kept, slot{"peers", bytes.Clone(r.Key)})
	}
	on.Slots, on.PeersFile, on.PeerLogins = kept, r.Commitments, r.Logins
	sum := sha256.Sum256([]byte(r.Commitments))
	out := peerKeyed{InitramfsSHA: hex.EncodeToString(sum[:])}
	for i, s := range kept {
		out.Slots = append(out.Slots, fmt.Sprintf("%d %s", i, s.kind))
	}
	return out
}

// SpoilPeers changes what the installed initramfs expects of peers, as an older per-node part would.
func (m *Machine) SpoilPeers(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.installed().PeersFile = text
}

// peerOf names the peer that a login belongs to; "" is the fleet itself.
func (m *Machine) peerOf(fingerprint string) string {
	d := m.snapshot()
	for _, l := range d.PeerLogins {
		if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.Key)); err == nil && ssh.FingerprintSHA256(k) == fingerprint {
			return l.Node
		}
	}
	return ""
}

// mayUnlock are the logins of the initramfs: the fleet's and its peers'.
func (s *content) mayUnlock() []string {
	out := append([]string(nil), s.UnlockKeys...)
	for _, l := range s.PeerLogins {
		out = append(out, l.Key)
	}
	return out
}

// takeShare plays the door for a peer: it keeps the share, and returns the key when enough are there. Otherwise the
// session has ended, and nothing was tried on the disk but a key that was committed to.
func (m *Machine) takeShare(bt *boot, s *session, peer string, line []byte) (key []byte, outcome string) {
	m.mu.Lock()
	key, words, status, outcome := m.share(bt, peer, strings.TrimRight(string(line), "\n"))
	m.mu.Unlock()
	if key == nil {
		s.say("fleet: " + words)
		s.exit(status)
	}
	return key, outcome
}

// share judges one share; mu is held.
func (m *Machine) share(bt *boot, peer, line string) (key []byte, words string, status uint32, outcome string) {
	refuse := func(kind, text string) ([]byte, string, uint32, string) {
		return nil, kind + ": " + text + "; no try was used", 65, "share-" + strings.Fields(kind)[0]
	}
	on := m.installed()
	if on.PeersFile == "" {
		return refuse("wrong share", "no shares are expected here")
	}
	f := strings.Split(line, " ")
	if len(f) != 6 || f[0]+" "+f[1]+" "+f[2] != "popfleet-share 1 "+on.Node || len(f[5]) != 64 {
		return refuse("wrong share", "peer "+peer+" sent something else")
	}
	terms, promise := "", ""
	for l := range strings.Lines(on.PeersFile) {
		l = strings.TrimSpace(l)
		if rest, ok := strings.CutPrefix(l, "generation "+f[3]+" "); ok {
			terms = rest
		}
		if rest, ok := strings.CutPrefix(l, "share "+f[3]+" "+f[4]+" "); ok {
			promise = rest
		}
	}
	sum := sha256.Sum256([]byte(line))
	switch {
	case terms == "":
		return refuse("stale share", "generation "+f[3]+" of peer "+peer+" is not known here")
	case promise != peer+" "+hex.EncodeToString(sum[:]):
		return refuse("wrong share", "that of peer "+peer+" is not what was committed to")
	case bt.door.opened || bt.stage != locked:
		return nil, "it has been opened: set up successfully", 0, "opened-before"
	}
	var need int
	var digest string
	if _, err := fmt.Sscanf(terms, "%d %64s", &need, &digest); err != nil {
		return refuse("dead shares", "the commitments are not understood")
	}
	bt.door.keep(f[3], f[4], f[5])
	if have := len(bt.door.shares[f[3]]); have < need {
		return nil, fmt.Sprintf("share kept: %d of %d", have, need), 0, "share-kept"
	}
	joined := join(bt.door.shares[f[3]], need)
	sum = sha256.Sum256([]byte("popfleet-peer-key 1 " + on.Node + " " + f[3] + " " + joined))
	if hex.EncodeToString(sum[:]) != digest || !on.opens([]byte(joined)) {
		return refuse("dead shares", "generation "+f[3]+" opens no key slot")
	}
	if _, err := fmt.Sscan(f[3], &bt.door.spent); err != nil {
		return refuse("dead shares", "the commitments are not understood")
	}
	return []byte(joined), "", 0, ""
}

// keep remembers a share until the power goes.
func (d *door) keep(generation, index, value string) {
	if d.shares == nil {
		d.shares = map[string]map[byte][]byte{}
	}
	if d.shares[generation] == nil {
		d.shares[generation] = map[byte][]byte{}
	}
	var x byte
	if _, err := fmt.Sscan(index, &x); err != nil {
		return // it was committed to, so it is a number
	}
	if y, err := hex.DecodeString(value); err == nil {
		d.shares[generation][x] = y
	}
}

// Tables of GF(2^8) with the generator 3: the field of the initramfs' script, reached another way.
var exps, logs = func() (e [510]byte, l [256]int) {
	v := 1
	for i := range 255 {
		e[i], e[i+255] = byte(v), byte(v)
		l[v] = i
		if v ^= v << 1; v > 255 {
			v ^= 0x11b
		}
	}
	return e, l
}()

// join interpolates need of the shares at 0, and returns it in hex.
func join(all map[byte][]byte, need int) string {
	var xs []byte
	for x := 1; x <= 255 && len(xs) < need; x++ {
		if all[byte(x)] != nil {
			xs = append(xs, byte(x))
		}
	}
	out := make([]byte, 32)
	for _, x := range xs {
		l := 0 // the logarithm of its coefficient
		for _, o := range xs {
			if o != x {
				l += logs[o] + 255 - logs[o^x]
			}
		}
		for i, y := range all[x] {
			if y != 0 {
				out[i] ^= exps[(logs[y]+l)%255]
			}
		}
	}
	return hex.EncodeToString(out)
}
