package e2e

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"popfleet/agents/peerunlock"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/playbooks"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// sharingCompiler puts each node's shares into its spec, and where a watcher of that node reads them: what a compiled
// spec says is on the node when the node has applied it.
type sharingCompiler struct {
	compiler
	w   *world
	dir string
}

func (c *sharingCompiler) Compile(ctx context.Context, node string) (spec.Node, remote.Blobs, error) {
	n, blobs, err := c.compiler.Compile(ctx, node)
	if err != nil {
		return n, blobs, err
	}
	var names []string
	for _, o := range c.w.nodes {
		names = append(names, o.Name)
	}
	u, err := playbooks.FromVault(c.w.vault).(playbooks.PeerShares).PeerUnlock(node, names)
	if err != nil || u == nil {
		return n, blobs, err
	}
	for i, ward := range u.Wards {
		state, err := c.w.vault.NodeState(ward.Node)
		if err != nil {
			return n, blobs, err
		}
		u.Wards[i].Address = net.JoinHostPort(state.Addresses[0], "2222")
	}
	data, err := json.Marshal(u)
	if err != nil {
		return n, blobs, err
	}
	n.Files = append(n.Files, spec.File{Path: peerunlock.File, Mode: 0o640, Owner: "root", Group: "root", Content: data, Secret: true})
	return n, blobs, os.WriteFile(filepath.Join(c.dir, node+".json"), data, 0o600)
}

// newSharing is a world whose nodes open each other, two of up to three.
func newSharing(t *testing.T, nodes int) (*world, *sharingCompiler, lifecycle.Peers) {
	t.Helper()
	w := newWorld(t, inprocess.Options{}, nodes)
	w.deps.Boots, w.deps.Rotation, w.deps.Spend = w.vault, w.vault, w.vault.SpendShares
	c := &sharingCompiler{compiler{content: "first"}, w, t.TempDir()}
	w.deps.Compiler = c
	w.serving(t, w.up(t))
	return w, c, lifecycle.Peers{Vault: w.vault, Threshold: 2, Most: 3}
}

func (w *world) share(t *testing.T, p lifecycle.Peers) []lifecycle.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results, err := lifecycle.SharePeers(ctx, w.deps, w.nodes, p)
	must(t, err)
	return results
}

// settled demands that every node has one peers' key, and that nothing is left to do.
func (w *world) settled(t *testing.T, generation int) {
	t.Helper()
	for _, n := range w.nodes {
		s, err := w.vault.Shares(n.Name)
		must(t, err)
		m := w.lab.Machine(t, n.Name)
		if s.Current == nil || s.Next != nil || s.Retiring || m.Slots()["peers"] != 1 || s.Generation < generation {
			t.Errorf("%s: %+v, slots %v\n%s", n.Name, s, m.Slots(), w.story(n.Name))
		}
	}
}

// everybody runs the agents of all nodes until the test ends.
func (w *world) everybody(t *testing.T, c *sharingCompiler) {
	t.Helper()
	p := &peered{world: w, t: t, alive: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, n := range w.nodes {
		watcher := peerunlock.New(peerunlock.Deps{Alive: p, Dial: w.deps.Dial, File: filepath.Join(c.dir, n.Name+".json"), Every: 5 * time.Millisecond,
			Rules: peerunlock.Rules{Recently: time.Minute, Silent: 10 * time.Millisecond, Pause: 20 * time.Millisecond, Hourly: 1000}})
		all.Go(func() { watcher.Run(ctx) })
		waitUntil(t, func() bool {
			for _, s := range watcher.Status() {
				if s.Alive.IsZero() {
					return false
				}
			}
			return len(watcher.Status()) > 0
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
}

func (w *world) rebootsAlone(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		m := w.lab.Machine(t, n.Name)
		must(t, m.Reset(t.Context()))
		waitUntil(t, func() bool { return m.Stage() == "system" })
		if wasted, _ := burnt(m); wasted != 0 {
			t.Errorf("%s: %d tries were wasted", n.Name, wasted)
		}
	}
}

// TestAFleetSharesAndRebootsWithoutAController: every node, one after the other; then the operator finds nothing amiss.
func TestAFleetSharesAndRebootsWithoutAController(t *testing.T) {
	w, c, p := newSharing(t, 5)
	for _, r := range w.share(t, p) {
		if r.Err != nil {
			t.Fatalf("%s: %v\n%s", r.Node, r.Err, w.story(r.Node))
		}
	}
	w.settled(t, 1)
	if again := w.share(t, p); len(again) != 0 {
		t.Errorf("again: %+v", again)
	}
	w.everybody(t, c)
	w.rebootsAlone(t)
	w.serving(t, w.up(t)) // boots are proven: what was put into the per-node parts is on record
	// What the peers put together is exchanged, once, and the new shares open as the old ones did.
	for _, r := range w.share(t, p) {
		if r.Err != nil {
			t.Fatalf("%s: %v\n%s", r.Node, r.Err, w.story(r.Node))
		}
	}
	w.settled(t, 2)
	w.serving(t, w.up(t))
	if again := w.share(t, p); len(again) != 0 {
		t.Errorf("exchanged again without a boot: %+v", again)
	}
	w.rebootsAlone(t)
}

// TestARemovedNodeIsSharedAround: the holders of its wards' shares change, the others' do not.
func TestARemovedNodeIsSharedAround(t *testing.T) {
	w, c, p := newSharing(t, 6)
	w.share(t, p)
	w.settled(t, 1)
	gone := w.nodes[5].Name
	held := map[string]bool{}
	for _, n := range w.nodes[:5] {
		s, err := w.vault.Shares(n.Name)
		must(t, err)
		_, held[n.Name] = s.Current.Share(gone)
	}
	w.nodes = w.nodes[:5]
	must(t, w.vault.Forget(gone))
	w.serving(t, w.up(t)) // nobody has a share of it any more
	w.share(t, p)
	for _, n := range w.nodes {
		s, err := w.vault.Shares(n.Name)
		must(t, err)
		if _, still := s.Current.Share(gone); still || (s.Generation == 2) != held[n.Name] {
			t.Errorf("%s: generation %d, the node that left held a share: %v", n.Name, s.Generation, held[n.Name])
		}
	}
	w.settled(t, 1)
	w.everybody(t, c)
	w.rebootsAlone(t)
}

// TestSharingFailsHalfWay: a ward or a holder that fails delays nobody else, and the next run ends it.
func TestSharingFailsHalfWay(t *testing.T) {
	for _, step := range []string{"add", "added", "retire", "retired", "files"} {
		w, _, p := newSharing(t, 4)
		w.lab.Faults.MustAdd(faults.Fault{Kind: faults.SpontaneousBoot, Step: step, Times: 1})
		failed := 0
		for _, r := range w.share(t, p) {
			if r.Err != nil {
				failed++
			}
		}
		w.serving(t, w.up(t)) // whoever restarted is unlocked
		for _, r := range w.share(t, p) {
			if r.Err != nil {
				t.Errorf("%s: %s: %v\n%s", step, r.Node, r.Err, w.story(r.Node))
			}
		}
		w.settled(t, 1)
		t.Logf("%s: %d nodes failed at first", step, failed)
	}
}

// TestSwitchedOffAndTooSmall: no peers' key anywhere.
func TestSwitchedOffAndTooSmall(t *testing.T) {
	w, _, p := newSharing(t, 3)
	w.share(t, p)
	w.settled(t, 1)
	for name, change := range map[string]func() lifecycle.Peers{
		"switched off": func() lifecycle.Peers { return lifecycle.Peers{Vault: w.vault} },
		"too small": func() lifecycle.Peers {
			return lifecycle.Peers{Vault: w.vault, Threshold: 3}
		},
	} {
		w.share(t, p)
		w.settled(t, 1)
		w.share(t, change())
		for _, n := range w.nodes {
			s, err := w.vault.Shares(n.Name)
			must(t, err)
			if s.Current != nil || s.Retiring || w.lab.Machine(t, n.Name).Slots()["peers"] != 0 {
				t.Errorf("%s: %s: %+v", name, n.Name, s)
			}
		}
	}
}
