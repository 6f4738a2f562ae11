package bootcheck

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
	"popfleet/internal/shares"
	"popfleet/playbooks/spec"
)

// given is what two peers of the world's node may hand over, in a generation.
func given(t *testing.T, generation int) spec.BootPeers {
	g, err := shares.New("fsn-1", generation, 2, []string{"ams-1", "waw-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := spec.BootPeers{Commitments: shares.Commitments{Node: "fsn-1", Generations: []shares.Commitment{g.Commit()}}.Text()}
	for i, peer := range []string{"ams-1", "waw-1"} {
		p.Logins = append(p.Logins, spec.PeerLogin{Node: peer, Key: loginKey(t, byte(generation*10+i))})
	}
	return p
}

func loginKey(t *testing.T, seed byte) string {
	pub, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)).Public())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
}

// withPeers has the node expect p, in its own copy and in the initramfs.
func (w *world) withPeers(p spec.BootPeers) {
	w.nodePart(bootchain.Node{Network: running, AuthorizedKeys: []string{adminKey}, LUKSUUID: luksUUID,
		Peers: bootchain.Peers{Commitments: p.Commitments, Logins: p.Logins}})
}

// keepPeers has only the node's own copy say p: the initramfs is another's, or an older one.
func (w *world) keepPeers(p spec.BootPeers) {
	n, err := bootchain.ReadNode(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Peers = bootchain.Peers{Commitments: p.Commitments, Logins: p.Logins}
	if err := n.Save(w.root); err != nil {
		w.t.Fatal(err)
	}
}

func TestPeersOfTheNextBoot(t *testing.T) {
	one, two := given(t, 1), given(t, 2)
	moved := one
	moved.Logins = slices.Clone(one.Logins)
	moved.Logins[1].Key = loginKey(t, 99)
	nobody := spec.BootPeers{}
	for name, c := range map[string]struct {
		spoil func(*world)
		asked *spec.BootPeers
		ok    bool
		says  string
		do    string
	}{
		"nobody":               {func(*world) {}, &nobody, true, "no peers", ""},
		"nobody, not asked":    {func(*world) {}, nil, true, "no peers", ""},
		"as given":             {func(w *world) { w.withPeers(one) }, &one, true, "ams-1, waw-1 may hand over shares, as they were given", ""},
		"as kept":              {func(w *world) { w.withPeers(one) }, nil, true, "as kept on the node", ""},
		"another generation":   {func(w *world) { w.withPeers(one) }, &two, false, "commits to other shares", doShares},
		"never told":           {func(*world) {}, &one, false, "nothing is expected of any peer", doShares},
		"off, and still there": {func(w *world) { w.withPeers(one) }, &nobody, false, "of nobody by right", doShares},
		"a login changed":      {func(w *world) { w.withPeers(moved) }, &one, false, "the logins are of", doShares},
		"older initramfs":      {func(w *world) { w.withPeers(one); w.keepPeers(two) }, &two, false, "commits to other shares", doNodePart},
		"not in the initramfs": {func(w *world) { w.keepPeers(one) }, &one, false, "in the initramfs nothing is expected", doNodePart},
		"other logins in it":   {func(w *world) { w.withPeers(moved); w.keepPeers(one) }, &one, false, "in the initramfs the logins", doNodePart},
		"a stranger's":         {func(w *world) { w.withPeers(one); w.keepPeers(nobody) }, &nobody, false, "would take shares of ams-1", doStranger},
		"nothing reads shares": {func(w *world) { w.withPeers(one); delete(w.generic, shareScript); w.initrd() }, &one, false, "lacks etc/fleet/shares.sh", doInitramfs},
		"no shares, no reader": {func(w *world) { delete(w.generic, shareScript); w.initrd() }, &nobody, true, "no peers", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			c.spoil(w)
			b := w.check(spec.BootCheckRequest{Peers: c.asked})
			i := slices.IndexFunc(b.Checks, func(p spec.BootProof) bool { return p.Name == Peers })
			if got := b.Checks[i]; got.OK != c.ok || !strings.Contains(got.Why, c.says) || got.Do != c.do {
				t.Errorf("%+v", got)
			}
			if names, why := failures(b); len(names) > 1 || c.ok == (len(names) == 1) {
				t.Errorf("failed %v: %s", names, why)
			}
		})
	}
}
