package controller

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/fleet/controller/policy"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/remote"
)

// watcher looks at silent nodes, each by a goroutine of its own, so that one that hangs holds up no other.
type watcher struct {
	*board
	runID     string
	visits    sync.WaitGroup
	addressed time.Time // when addresses were read; run's own
}

func newWatcher(b *board, runID string) *watcher { return &watcher{board: b, runID: runID} }

// Times at the pace of a real machine.
const (
	lookTimeout = 5 * time.Second
	systemEvery = 15 * time.Second // sshd may count knocks against us
)

// run looks until ctx ends, and waits for the visits under way.
func (w *watcher) run(ctx context.Context) error {
	defer w.visits.Wait()
	tick := time.NewTicker(w.deps.Lifecycle.Pace.Of(w.cfg.Poll))
	defer tick.Stop()
	for {
		w.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *watcher) round(ctx context.Context) {
	if w.now().Sub(w.addressed) >= fleetEvery {
		w.addressed = w.now()
		w.readAddresses()
	}
	for _, n := range w.inventory().Resolved() {
		if w.claimProof(n.Name) {
			w.visits.Go(func() {
				defer w.change(n.Name, func(rec *record, _ time.Time) { rec.busy = false })
				w.prove(ctx, n)
			})
			continue
		}
		if !w.claim(n.Name) {
			continue
		}
		w.visits.Go(func() {
			defer w.change(n.Name, func(rec *record, _ time.Time) { rec.busy = false })
			w.visit(ctx, n)
		})
	}
}

// readAddresses learns where the nodes are, also those that report; they appear while the controller runs.
func (w *watcher) readAddresses() {
	for _, n := range w.inventory().Resolved() {
		if _, err := w.said(n.Name); err != nil {
			w.deps.Log.Warn("what was said of the node cannot be read", "node", n.Name, "error", err)
		}
		state, err := w.deps.Lifecycle.Memory.NodeState(n.Name)
		if err != nil || len(state.Addresses) == 0 {
			continue // the visit of a silent node says so
		}
		w.change(n.Name, func(rec *record, _ time.Time) {
			rec.address, rec.sealed, rec.install = state.Addresses[0], state.Sealed, state.InstallRun
		})
	}
}

// claim says whether the node is due for a visit, and takes it.
func (w *watcher) claim(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, now := w.at(node), w.now()
	w.judge(node, rec, now)
	if rec.busy || now.Before(rec.nextVisit) || rec.report != nil && now.Sub(rec.received) < w.overdue() {
		return false
	}
	rec.busy = true
	return true
}

// visit looks at one silent node, and unlocks it when that is right.
func (w *watcher) visit(ctx context.Context, n inventory.Resolved) {
	state, err := w.deps.Lifecycle.Memory.NodeState(n.Name)
	switch {
	case err != nil:
		w.notLooked(n.Name, err.Error())
		return
	case !state.Sealed || len(state.Addresses) == 0:
		w.notLooked(n.Name, "it is not sealed yet: `fleet up` has work to do")
		return
	}
	pin, err := remote.ParseKey(state.InitramfsHostKey)
	if err != nil {
		w.notLooked(n.Name, "its pinned host key: "+err.Error())
		return
	}
	ports := w.deps.Lifecycle.Ports
	door := w.look(ctx, state, ports.Unlock)
	switch {
	case ctx.Err() != nil:
	case door.HostKey == nil:
		w.doorShut(ctx, n.Name, state)
	case !remote.SameKey(door.HostKey, pin):
		w.impostor(ctx, n.Name, address(state, ports.Unlock), door.Fingerprint(), pin)
	default:
		w.locked(ctx, n, state, pin)
	}
}

func (w *watcher) look(ctx context.Context, state vault.NodeState, port int) remote.Door {
	ctx, cancel := context.WithTimeout(ctx, w.deps.Lifecycle.Pace.Of(lookTimeout))
	defer cancel()
	return w.deps.Look(ctx, address(state, port))
}

func address(state vault.NodeState, port int) string {
	return net.JoinHostPort(state.Addresses[0], strconv.Itoa(port))
}

// notLooked: there is nothing to look at, or no way to judge it.
func (w *watcher) notLooked(node, why string) {
	w.change(node, func(rec *record, now time.Time) {
		rec.doorSince, rec.systemAnswers = time.Time{}, nil
		if !rec.lock.Alarm {
			rec.lock.set(now, LockUnknown, why, "")
		}
	})
}

// doorShut: it is not in its initramfs. It may be booting, running without its agent, or gone.
func (w *watcher) doorShut(ctx context.Context, node string, state vault.NodeState) {
	ask := false
	w.change(node, func(rec *record, now time.Time) {
		rec.doorSince = time.Time{}
		ask = now.Sub(rec.systemAsked) >= w.deps.Lifecycle.Pace.Of(systemEvery)
		if ask {
			rec.systemAsked = now
		}
		if rec.lock.State != Unlocked && !rec.lock.Alarm && rec.systemAnswers == nil {
			rec.lock.set(now, LockUnknown, "nothing answers on its unlock port", "")
		}
	})
	if !ask {
		return
	}
	door := w.look(ctx, state, w.deps.Lifecycle.Ports.SSH)
	want, err := remote.ParseKey(state.SystemHostKey)
	if ctx.Err() != nil || err != nil {
		return
	}
	running := door.HostKey != nil && remote.SameKey(door.HostKey, want)
	w.change(node, func(rec *record, now time.Time) {
		rec.systemAnswers = &running
		switch {
		case running:
			// The system's host key lies on the encrypted disk: who shows it has been unlocked.
			rec.lock.heard(now)
			rec.lock.Why = "its system answers, its agent does not report"
		case !rec.lock.Alarm:
			rec.lock.set(now, LockUnknown, "nothing answers", "")
		}
		w.judge(node, rec, now)
	})
}

// impostor: another key answers on the unlock port. Nothing is sent to it, now or later, until a person has looked.
func (w *watcher) impostor(ctx context.Context, node, addr, got string, pin ssh.PublicKey) {
	wrong := &remote.HostKeyError{Addr: addr, Want: []string{ssh.FingerprintSHA256(pin)}, Got: got}
	w.raise(ctx, node, wrong.Error(), ssh.FingerprintSHA256(pin))
}

// raise holds the node with an alarm, once for as long as the same key is pinned.
func (w *watcher) raise(ctx context.Context, node, why, pin string) {
	if w.alarmed(node, pin) {
		return
	}
	w.deps.Log.Error("node held", "node", node, "why", why)
	err := w.changeNow(ctx, node, func(rec *record, now time.Time) {
		rec.lock.alarm(now, why, unlockCommand(node), pin)
	})
	if err != nil {
		w.deps.Log.Error("alarm not written", "node", node, "error", err)
	}
	// What was seen is in the words; no rule had to be asked.
	_ = w.audit(ctx, node, policy.Facts{Now: w.now().UTC(), Asker: policy.Controller, Who: w.deps.Name, Pinned: []string{pin}},
		policy.Verdict{Decision: policy.Hold, Why: why})
}

// alarmed: a person must look first, as long as the key that was pinned then is pinned.
func (w *watcher) alarmed(node, pin string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.at(node).lock
	return l.Alarm && l.Pin == pin
}

func unlockCommand(node string) string { return fmt.Sprintf("fleet unlock %s", node) }
