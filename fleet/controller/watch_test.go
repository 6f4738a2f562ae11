package controller

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/agents"
	"popfleet/internal/journal"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// bench is a watcher over one node, with everything around it made by hand.
type bench struct {
	t       *testing.T
	w       *watcher
	journal *notes
	dir     string
	store   *store
	cfg     Config

	mu      sync.Mutex
	doors   map[string]ssh.PublicKey // by port; nil: shut
	state   vault.NodeState
	unlock  func(lifecycle.Deps) (lifecycle.Result, error)
	unlocks int
	said    vault.UnlockState
	proofs  int
	prove   func() (lifecycle.Result, error)
	acts    []provider.Activity
	actsErr error
	asked   int  // of the provider
	power   bool // the controller has the provider's credentials
}

const node = "fsn-1"

func newKey(t *testing.T) (ssh.PublicKey, string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, authorized(key)
}

// keysOf a node: its initramfs's and its system's.
type keysOf struct{ initramfs, system, stranger ssh.PublicKey }

// inBubble runs a test with a fake clock and ends the watcher with it.
func inBubble(t *testing.T, do func(t *testing.T, b *bench, k keysOf)) {
	t.Helper()
	inBubbleWith(t, func(*bench) {}, do)
}

// inBubbleWith is inBubble with things arranged before the watcher starts.
func inBubbleWith(t *testing.T, arrange func(*bench), do func(t *testing.T, b *bench, k keysOf)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, k := newBench(t, t.TempDir())
		arrange(b)
		defer b.begin()()
		do(t, b, k)
	})
}

// inFolder is inBubble over a folder that lasts, with the keys of k once it has some.
func inFolder(t *testing.T, dir string, k *keysOf, do func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, fresh := newBench(t, dir)
		if k.initramfs == nil {
			*k = fresh
		}
		b.state.InitramfsHostKey, b.state.SystemHostKey = authorized(k.initramfs), authorized(k.system)
		defer b.begin()()
		do(b)
	})
}

func authorized(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func quiet() Deps {
	d := Deps{}
	_ = d.complete()
	return d
}

func newBench(t *testing.T, dir string) (*bench, keysOf) {
	var k keysOf
	b := &bench{t: t, journal: &notes{}, dir: dir, doors: map[string]ssh.PublicKey{}}
	b.state = vault.NodeState{Sealed: true, Addresses: []string{"198.18.0.10"}, ServerID: "1"}
	k.initramfs, b.state.InitramfsHostKey = newKey(t)
	k.system, b.state.SystemHostKey = newKey(t)
	k.stranger, _ = newKey(t)
	b.unlock = func(d lifecycle.Deps) (lifecycle.Result, error) {
		d.Progress(lifecycle.Event{Kind: lifecycle.EventEnd, Op: lifecycle.OpUnlock})
		b.open("2222", nil)
		b.open("22", k.system)
		return lifecycle.Result{Node: node, Stage: lifecycle.Sealed, Changed: true}, nil
	}
	return b, k
}

// begin starts the watcher over b's folder, as a controller that starts does.
func (b *bench) begin() (end func()) {
	b.t.Helper()
	s, err := openStore(b.dir + "/controller.db")
	if err != nil {
		b.t.Fatal(err)
	}
	fleet := inventory.Default()
	fleet.Name = "demo"
	fleet.PoPs = []inventory.PoP{{Name: "fsn", Nodes: []inventory.Node{{Name: node}, {Name: "fsn-2"}}}}
	d := Deps{
		Fleet:     func() (*inventory.Fleet, error) { return fleet, nil },
		Identity:  nil,
		Lifecycle: lifecycle.Deps{Fleet: "demo", Memory: b, Boots: b, Journal: b.journal},
		Unlock:    b.unlockOnce,
		Prove:     b.proveOnce,
		Look:      b.look,
	}
	if b.power {
		d.Activity = b.activity
	}
	_ = d.complete() // the server's part is missing on purpose
	cfg := b.cfg
	cfg.Dir = b.dir
	board, err := newBoard(b.t.Context(), cfg.complete(), d, s)
	if err != nil {
		b.t.Fatal(err)
	}
	b.store, b.w = s, newWatcher(board, "run")
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.w.run(ctx) }()
	return func() {
		cancel()
		if err := errors.Join(<-done, board.flush(context.Background()), s.close()); err != nil {
			b.t.Error(err)
		}
	}
}

func (b *bench) unlockOnce(_ context.Context, d lifecycle.Deps, n lifecycle.Node) (lifecycle.Result, error) {
	if n.Name != node {
		b.t.Errorf("unlock of %s", n.Name)
	}
	if err := d.Allow(b.t.Context(), n, lifecycle.Observation{}); err != nil {
		return lifecycle.Result{Stage: lifecycle.Locked, Err: fmt.Errorf("%w: %w", lifecycle.ErrHeld, err)}, nil
	}
	b.mu.Lock()
	b.unlocks++
	do := b.unlock
	b.mu.Unlock()
	return do(d)
}

func (b *bench) proveOnce(context.Context, lifecycle.Deps, lifecycle.Node) (lifecycle.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proofs++
	if b.prove == nil {
		return lifecycle.Result{}, nil
	}
	return b.prove()
}

func (b *bench) activity(context.Context, inventory.Resolved, string, time.Time) ([]provider.Activity, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	return b.acts, b.actsErr
}

func (b *bench) UnlockState(name string) (vault.UnlockState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name != node {
		return vault.UnlockState{}, nil
	}
	return b.said, nil
}

func (b *bench) UpdateUnlock(name string, change func(*vault.UnlockState) error) (vault.UnlockState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name != node {
		return vault.UnlockState{}, errors.New("another node's state was written")
	}
	s := b.said
	err := change(&s)
	if err == nil {
		b.said = s
	}
	return s, err
}

func (b *bench) look(_ context.Context, addr string) remote.Door {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.doors[addr[strings.LastIndex(addr, ":")+1:]]
	return remote.Door{Open: key != nil, HostKey: key}
}

func (b *bench) open(port string, key ssh.PublicKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doors[port] = key
}

func (b *bench) NodeState(name string) (vault.NodeState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name != node {
		return vault.NodeState{}, nil
	}
	return b.state, nil
}

func (b *bench) SetNodeState(string, vault.NodeState) error {
	b.t.Error("the controller wrote a node's state")
	return nil
}

func (b *bench) report(boot string, seq uint64) {
	b.w.accept(node, []agents.Report{{V: 1, Node: node, BootID: boot, Seq: seq, Time: time.Now()}})
}

// reportFor reports every ten seconds.
func (b *bench) reportFor(d time.Duration, boot string) {
	for i := range uint64(d / (10 * time.Second)) {
		b.report(boot, i+1)
		after(10 * time.Second)
	}
}

// after lets the bubble's time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) lock() Lock { return b.w.status().Nodes[0].Lock }

func (b *bench) sent() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unlocks
}

// notes is a journal that keeps ops.
type notes struct {
	mu   sync.Mutex
	ops  []string
	seen []journal.Observation
}

func (n *notes) Begin(_ context.Context, s journal.Step) (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ops = append(n.ops, s.Node+" "+s.Op)
	return int64(len(n.ops)), nil
}
func (*notes) End(context.Context, int64, journal.Outcome) error          { return nil }
func (*notes) Observe(context.Context, string, string, string, any) error { return nil }
func (n *notes) Observations(context.Context, string, int) ([]journal.Observation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen, nil
}

func (n *notes) count(op string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.ops {
		if o == node+" "+op {
			c++
		}
	}
	return c
}

func TestARecentlyAliveNodeIsUnlockedByItself(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		after(15 * time.Second) // it reboots
		b.open("2222", k.initramfs)
		after(5 * time.Second)
		if b.sent() != 1 {
			t.Fatalf("%d keys sent, lock %+v", b.sent(), b.lock())
		}
		after(20 * time.Second)
		b.report("boot-2", 1)
		l := b.lock()
		if l.State != Unlocked || l.LastUnlock == nil || *l.LastUnlock.DropbearToUnlocked > 5 || *l.LastUnlock.UnlockedToReportSec < 20 || *l.LastUnlock.UnlockedToReportSec > 25 {
			t.Errorf("lock %+v, unlock %+v", l, l.LastUnlock)
		}
		if b.journal.count(opAllow) != 1 || b.journal.count(opHold) != 0 {
			t.Errorf("journal %v", b.journal.ops)
		}
	})
}

func TestANodeThatReportsIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.open("2222", k.initramfs)
		b.report("boot-1", 1)
		b.reportFor(2*time.Minute, "boot-1")
		// The look before the first report found a node nothing was heard of.
		if b.sent() != 0 || b.lock().State != Unlocked {
			t.Errorf("%d keys sent, lock %+v", b.sent(), b.lock())
		}
	})
}
