package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/peerunlock"
	"popfleet/inventory/vault"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/playbooks"
	"popfleet/provision/remote"
	"popfleet/provision/reshare"
)

// peered is a world without a controller: the first node is the ward of the others, of which any two may open it.
type peered struct {
	*world
	t    *testing.T
	ward *scripted.Machine
	dir  string // each peer's wards

	mu    sync.Mutex
	alive map[string]time.Time // guarded by mu: heard last
}

func newPeered(t *testing.T, nodes int) *peered {
	t.Helper()
	p := &peered{world: newWorld(t, inprocess.Options{}, nodes), t: t, dir: t.TempDir(), alive: map[string]time.Time{}}
	p.deps.Boots, p.deps.Rotation = p.vault, p.vault
	p.serving(t, p.up(t))
	p.ward = p.lab.Machine(t, "fsn-1")
	return p
}

// wish is the ward's, with these nodes for holders.
func (p *peered) wish(peers ...string) reshare.Wish {
	p.t.Helper()
	s, err := p.vault.NodeState("fsn-1")
	must(p.t, err)
	return reshare.Wish{Node: "fsn-1", Install: s.InstallRun, Threshold: 2, Peers: peers}
}

// call is the operator's link to the ward.
func (p *peered) call(ctx context.Context, c remote.Call) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	state, err := p.vault.NodeState("fsn-1")
	must(p.t, err)
	pin, err := remote.ParseKey(state.SystemHostKey)
	must(p.t, err)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(p.t, err)
	key, err := ssh.NewSignerFromKey(private)
	must(p.t, err)
	cert, err := p.vault.SignOperator(key.PublicKey(), "tester", time.Minute)
	must(p.t, err)
	id, err := ssh.NewCertSigner(cert, key)
	must(p.t, err)
	conn, err := remote.Connect(ctx, p.deps.Dial, remote.Target{Addr: net.JoinHostPort(state.Addresses[0], "22"), Trust: remote.Pinned(pin), Auth: id})
	if err != nil {
		return err
	}
	defer conn.Close()
	x, err := conn.Exchange(ctx, p.agent, nil)
	if err != nil {
		return err
	}
	defer x.Close()
	return x.Do(ctx, c)
}

// converge writes what the peers' specs would put on them.
func (p *peered) converge(peers ...string) {
	p.t.Helper()
	state, err := p.vault.NodeState("fsn-1")
	must(p.t, err)
	var names []string
	for _, n := range p.nodes {
		names = append(names, n.Name)
	}
	for _, peer := range peers {
		u, err := playbooks.FromVault(p.vault).(playbooks.PeerShares).PeerUnlock(peer, names)
		must(p.t, err)
		for i := range u.Wards {
			u.Wards[i].Address = net.JoinHostPort(state.Addresses[0], "2222")
		}
		data, err := json.Marshal(u)
		must(p.t, err)
		must(p.t, os.WriteFile(p.file(peer), data, 0o600))
	}
}

func (p *peered) file(peer string) string { return filepath.Join(p.dir, peer+".json") }

// shared gives the ward its key and the peers their shares.
func (p *peered) shared(peers ...string) {
	p.t.Helper()
	_, err := reshare.Give(p.t.Context(), p.vault, p.call, p.wish(peers...))
	must(p.t, err)
	p.converge(peers...)
	_, err = reshare.Retire(p.t.Context(), p.vault, p.call, "fsn-1")
	must(p.t, err)
}

// Heard plays the mesh.
func (p *peered) Heard(context.Context) (map[string]time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]time.Duration{}
	for _, n := range p.nodes {
		if m, ok := p.lab.Machines.Labelled(n.Name); ok && m.Stage() == "system" {
			p.alive[n.Name] = time.Now()
		}
		if at, ok := p.alive[n.Name]; ok {
			out[n.Name] = time.Since(at)
		}
	}
	return out, nil
}

// watch starts the agents of these peers; stop ends them.
func (p *peered) watch(peers ...string) (watchers map[string]*peerunlock.Watcher, stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var all sync.WaitGroup
	watchers = map[string]*peerunlock.Watcher{}
	for _, peer := range peers {
		w := peerunlock.New(peerunlock.Deps{Alive: p, Dial: p.deps.Dial, File: p.file(peer), Every: 5 * time.Millisecond,
			Rules: peerunlock.Rules{Recently: time.Minute, Silent: 10 * time.Millisecond, Pause: 20 * time.Millisecond, Hourly: 1000}})
		watchers[peer] = w
		all.Go(func() { w.Run(ctx) })
	}
	stop = func() { cancel(); all.Wait() }
	p.t.Cleanup(stop)
	for peer, w := range watchers { // each that has a ward has heard it alive once
		c, err := peerunlock.Load(p.file(peer))
		must(p.t, err)
		waitUntil(p.t, func() bool { s := w.Status(); return len(c.Wards) == 0 || len(s) == 1 && !s[0].Alive.IsZero() })
	}
	return watchers, stop
}

func (p *peered) reboot() {
	p.t.Helper()
	must(p.t, p.ward.Reset(p.t.Context()))
}

func (p *peered) opens() {
	p.t.Helper()
	waitUntil(p.t, func() bool { return p.ward.Stage() == "system" })
	if wasted, _ := burnt(p.ward); wasted != 0 {
		p.t.Errorf("%d tries were wasted", wasted)
	}
}

// tells waits until a watcher of one ward says so, and makes sure that the ward is locked and no try was used.
func (p *peered) tells(w *peerunlock.Watcher, words string) {
	p.t.Helper()
	waitUntil(p.t, func() bool {
		s := w.Status()
		return len(s) == 1 && (strings.Contains(s[0].Holds, words) || s[0].Last == words)
	})
	p.nothingUsed()
}

func (p *peered) nothingUsed() {
	p.t.Helper()
	if p.ward.Stage() != "locked" {
		p.t.Errorf("the ward is %s", p.ward.Stage())
	}
	for _, u := range p.ward.Ledger().Unlocks() {
		if u.Burnt && u.Outcome != "opened" {
			p.t.Errorf("a try was used: %+v", u)
		}
	}
}

func TestPeersOpenANodeWithoutAController(t *testing.T) {
	p := newPeered(t, 4)
	p.shared("fsn-2", "fsn-3", "fsn-4")
	if got := p.ward.Slots(); got["peers"] != 1 || got["machine"] != 1 || got["recovery"] != 1 {
		t.Fatalf("slots %v", got)
	}
	p.watch("fsn-2", "fsn-3", "fsn-4")
	_, already := burnt(p.ward)
	before, err := p.vault.MachineKey("fsn-1")
	must(t, err)
	for range 2 { // and the next time
		boots := len(p.ward.Ledger().Boots())
		p.reboot()
		p.opens()
		if len(p.ward.Ledger().Boots()) != boots+1 {
			t.Errorf("%d boots", len(p.ward.Ledger().Boots())-boots)
		}
	}
	if _, opened := burnt(p.ward); opened != 2+already {
		t.Errorf("opened %d times", opened-already)
	}
	for _, u := range p.ward.Ledger().Unlocks() {
		if u.Passphrase == scripted.Digest(before.Current.Reveal()) {
			t.Error("a peer had the machine key")
		}
	}
	// The operator comes back: the boots are proven and the machine key is exchanged, beside the peers' key.
	p.serving(t, p.up(t))
	if got := p.ward.Slots(); got["peers"] != 1 || got["machine"] != 1 {
		t.Errorf("slots %v", got)
	}
	after, err := p.vault.MachineKey("fsn-1")
	must(t, err)
	if after.Generation == before.Generation {
		t.Error("the machine key was not exchanged")
	}
	p.reboot()
	p.opens()
}

func TestOnePeerAloneOpensNothing(t *testing.T) {
	p := newPeered(t, 4)
	p.shared("fsn-2", "fsn-3", "fsn-4")
	alone, _ := p.watch("fsn-3")
	p.reboot()
	p.tells(alone["fsn-3"], string(peerunlock.Kept))
	n := len(p.ward.Ledger().Unlocks())
	waitUntil(t, func() bool { return len(p.ward.Ledger().Unlocks()) > n+3 }) // it comes again and again, with one share
	p.nothingUsed()
	// A power cut takes the share with it; a second peer brings what is missing.
	p.reboot()
	p.watch("fsn-2", "fsn-3")
	waitUntil(t, func() bool { return p.ward.Stage() == "locked" || p.ward.Stage() == "system" })
	p.opens()
}

func TestALyingPeerIsNamed(t *testing.T) {
	p := newPeered(t, 4)
	p.shared("fsn-2", "fsn-3", "fsn-4")
	data, err := os.ReadFile(p.file("fsn-2"))
	must(t, err)
	var u playbooks.PeerUnlock
	must(t, json.Unmarshal(data, &u))
	line := []byte(u.Wards[0].Share)
	if line[len(line)-1] ^= 1; line[len(line)-1] == '`' || line[len(line)-1] == 'g' || line[len(line)-1] == ':' {
		line[len(line)-1] = '0'
	}
	u.Wards[0].Share = string(line)
	data, err = json.Marshal(u)
	must(t, err)
	must(t, os.WriteFile(p.file("fsn-2"), data, 0o600))
	liar, _ := p.watch("fsn-2")
	p.reboot()
	p.tells(liar["fsn-2"], "wrong share: that of peer fsn-2 is not what was committed to")
	n := len(p.ward.Ledger().Unlocks())
	one, _ := p.watchLocked("fsn-3")
	p.tells(one["fsn-3"], string(peerunlock.Kept))
	p.watchLocked("fsn-4")
	p.opens()
	for _, a := range p.ward.Ledger().Unlocks()[n:] {
		if a.Outcome == "share-wrong" {
			t.Error("the liar came again")
		}
	}
}

// watchLocked is watch for peers that saw the ward alive before they were started anew.
func (p *peered) watchLocked(peers ...string) (map[string]*peerunlock.Watcher, func()) {
	p.mu.Lock()
	p.alive["fsn-1"] = time.Now().Add(-time.Second)
	p.mu.Unlock()
	return p.watch(peers...)
}

func TestARemovedNodesShareIsWorthless(t *testing.T) {
	p := newPeered(t, 5)
	p.shared("fsn-2", "fsn-3", "fsn-4")
	old := map[string][]byte{}
	for _, peer := range []string{"fsn-2", "fsn-3", "fsn-4"} {
		data, err := os.ReadFile(p.file(peer))
		must(t, err)
		old[peer] = data
	}
	p.shared("fsn-3", "fsn-4", "fsn-5") // fsn-2 was removed
	if got := p.ward.Slots(); got["peers"] != 1 {
		t.Errorf("slots %v", got)
	}
	// Even with two old shares together: the removed node's, and one that a peer kept.
	for _, peer := range []string{"fsn-2", "fsn-3"} {
		must(t, os.WriteFile(p.file(peer), old[peer], 0o600))
	}
	gone, stop := p.watch("fsn-2", "fsn-3")
	p.reboot()
	p.tells(gone["fsn-2"], "it does not let this node in")
	p.tells(gone["fsn-3"], "stale share: generation 1")
	stop()
	p.converge("fsn-3")
	p.watchLocked("fsn-3", "fsn-5")
	p.opens()
}

// TestReshareCutBetweenSteps: the operator dies before or after each of its words with the vault, or the node loses its
// power around each of its acts; then the node restarts without an operator. With the shares that the peers have then, it
// opens; and the operator who comes back ends what was begun.
func TestReshareCutBetweenSteps(t *testing.T) {
	p := newPeered(t, 5)
	sets := [][]string{{"fsn-2", "fsn-3", "fsn-4"}, {"fsn-3", "fsn-4", "fsn-5"}}
	p.shared(sets[0]...)
	_, _ = p.watch("fsn-2", "fsn-3", "fsn-4", "fsn-5")
	cuts := 0
	for _, cut := range []string{"want", "add", "added", "answer lost at add", "commit", "converged in part", "retire", "retired", "answer lost at retire", "end"} {
		next := sets[(cuts+1)%2]
		t.Log("cut at", cut)
		cuts++
		p.cutAt(cut, next)
		p.reboot()
		p.opens()
		p.shared(next...)
		s, err := p.vault.Shares("fsn-1")
		must(t, err)
		if got := p.ward.Slots(); got["peers"] != 1 || s.Retiring || s.Next != nil {
			t.Fatalf("%s: slots %v, %+v", cut, got, s)
		}
		p.reboot()
		p.opens()
	}
	t.Logf("%d cuts", cuts)
}

// cutAt begins to share anew and stops there.
func (p *peered) cutAt(cut string, next []string) {
	p.t.Helper()
	call := p.call
	lose := func(step string) reshare.Caller {
		return func(ctx context.Context, c remote.Call) error {
			err := p.call(ctx, c)
			if err == nil && strings.Contains(cut, step) {
				err = errKilled
			}
			return err
		}
	}
	switch cut {
	case "want":
		_, err := reshare.Give(p.t.Context(), p.vault, func(context.Context, remote.Call) error { return errKilled }, p.wish(next...))
		if err == nil {
			p.t.Fatal("not cut")
		}
		return
	case "add", "added", "retire", "retired":
		p.lab.Faults.MustAdd(faults.Fault{Kind: faults.SpontaneousBoot, Step: cut, Times: 1})
	case "answer lost at add", "answer lost at retire":
		call = lose("answer lost")
	}
	if strings.Contains(cut, "add") {
		if _, err := reshare.Give(p.t.Context(), p.vault, call, p.wish(next...)); err == nil {
			p.t.Fatalf("%s: not cut", cut)
		}
		return
	}
	_, err := reshare.Give(p.t.Context(), p.vault, p.call, p.wish(next...))
	must(p.t, err)
	if cut == "commit" {
		return
	}
	if p.converge(next[0]); cut == "converged in part" {
		return
	}
	p.converge(next...)
	if _, err := reshare.Retire(p.t.Context(), p.vault, call, "fsn-1"); (err == nil) != (cut == "end") {
		p.t.Fatalf("%s: %v", cut, err)
	}
}

// TestTheKillSwitchReachesThePeers: with the next converge nobody holds a share of it.
func TestTheKillSwitchReachesThePeers(t *testing.T) {
	p := newPeered(t, 4)
	p.shared("fsn-2", "fsn-3", "fsn-4")
	_, err := p.vault.UpdateUnlock("fsn-1", func(s *vault.UnlockState) error { s.Never = &vault.Order{By: "me", At: time.Now()}; return nil })
	must(t, err)
	p.converge("fsn-2", "fsn-3", "fsn-4")
	w, _ := p.watch("fsn-2", "fsn-3", "fsn-4")
	before := len(p.ward.Ledger().Unlocks())
	p.reboot()
	p.until(t, "fsn-1", "locked")
	for name, one := range w {
		if len(one.Status()) != 0 {
			t.Errorf("%s still holds a share", name)
		}
	}
	p.nothingUsed()
	if n := len(p.ward.Ledger().Unlocks()) - before; n != 0 {
		t.Errorf("%d knocks", n)
	}
}

// TestScriptedAndRealSharesAgree: the scripted machine joins shares by code of its own; what it accepts is what the Go
// package makes. (The initramfs' script is held to the same in provision/initramfs.)
func TestScriptedAndRealSharesAgree(t *testing.T) {
	p := newPeered(t, 6)
	wish := p.wish("fsn-2", "fsn-3", "fsn-4", "fsn-5", "fsn-6")
	wish.Threshold = 4
	_, err := reshare.Give(t.Context(), p.vault, p.call, wish)
	must(t, err)
	p.converge(wish.Peers...)
	p.watch("fsn-2", "fsn-4", "fsn-5", "fsn-6")
	p.reboot()
	p.opens()
}
