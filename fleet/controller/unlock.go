package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/fleet/controller/policy"
	"popfleet/internal/journal"
	"popfleet/internal/mtls"
	"popfleet/internal/runlock"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// maxAttempts bounds attempts that end without a verdict (no prompt, connection lost), from one report to the next.
const maxAttempts = 5

// locked: the node waits for its key, with the pinned host key.
func (w *watcher) locked(ctx context.Context, r inventory.Resolved, state vault.NodeState, key ssh.PublicKey) {
	pin := ssh.FingerprintSHA256(key)
	n := waiting{Resolved: r, state: state, pinned: pin, shown: pin}
	w.change(n.Name, func(rec *record, now time.Time) {
		rec.systemAnswers, rec.systemAsked = nil, time.Time{}
		if rec.doorSince.IsZero() {
			rec.doorSince = now
		}
		if rec.lock.FirstSeen.IsZero() {
			rec.lock.FirstSeen = now
		}
		w.judge(n.Name, rec, now)
	})
	if w.alarmed(n.Name, pin) {
		return
	}
	f, v := w.decide(ctx, n, false)
	if v.Decision != policy.Allow {
		w.hold(ctx, n.Name, f, v)
		return
	}
	release, err := tryLease(w.cfg.Dir, n.Name, "fleet controller")
	if err != nil {
		w.wait(n.Name, err)
		return
	}
	defer release()
	w.attempt(ctx, n, v.Why)
}

// hold leaves the decision to a person.
func (w *watcher) hold(ctx context.Context, node string, f policy.Facts, v policy.Verdict) {
	w.change(node, func(rec *record, now time.Time) { rec.lock.set(now, Held, v.Why, nextFor(node, v)) })
	_ = w.audit(ctx, node, f, v) // said in the log; a hold stands without a record
}

// nextFor is the command with which a person goes on.
func nextFor(node string, v policy.Verdict) string {
	if v.Decision == policy.Never {
		return "fleet unlock --allow " + node
	}
	for _, f := range v.Findings {
		if f.Decision == policy.Hold && !f.Final && (f.Rule == policy.RuleSuspect || f.Rule == policy.RuleProvider) {
			return "fleet unlock --approve " + node // an operator's asking alone does not lift these
		}
	}
	return unlockCommand(node)
}

// wait: somebody else on this folder is unlocking it, or the lease can't be had. Looked at again when that should be over.
func (w *watcher) wait(node string, err error) {
	w.change(node, func(rec *record, now time.Time) {
		rec.nextVisit = now.Add(w.deps.Lifecycle.Pace.Of(15 * time.Second))
		if errors.As(err, new(*runlock.ErrHeld)) {
			rec.lock.set(now, Unlocking, err.Error(), "")
			return
		}
		rec.lock.set(now, Locked, err.Error(), "")
	})
}

// attempt sends the key once, by lifecycle.Unlock.
func (w *watcher) attempt(ctx context.Context, n waiting, why string) {
	var bootBefore string
	err := w.changeNow(ctx, n.Name, func(rec *record, now time.Time) {
		rec.lock.set(now, Unlocking, why, "")
		rec.lock.Attempts++
		if rec.report != nil {
			bootBefore = rec.report.BootID
		}
	})
	if err != nil { // an attempt that would be forgotten is none
		w.deps.Log.Error("attempt not written, so not made", "node", n.Name, "error", err)
		w.wait(n.Name, err)
		return
	}
	a := &attempted{watcher: w, node: n.Name, bootBefore: bootBefore}
	pin := n.pinned
	d := w.lifecycle(n.Name, a.hear)
	d.Allow = func(ctx context.Context, _ lifecycle.Node, seen lifecycle.Observation) error {
		return a.allowed(ctx, n, seen)
	}
	r, err := w.deps.Unlock(ctx, d, lifecycle.Node{Name: n.Name, PoP: n.PoP, Machine: n.Machine})
	if err == nil {
		err = r.Err
	}
	a.conclude(ctx, r.Stage, err, pin)
}

// lifecycle is what an attempt or a proof works with: no provider, no lease but the one that is held, no spec.
func (w *watcher) lifecycle(node string, hear func(lifecycle.Event)) lifecycle.Deps {
	d := w.deps.Lifecycle
	d.Run, d.Journal, d.Progress, d.Lease, d.Compiler, d.Allow = w.runID, lasting{d.Journal, w}, hear, nil, nil, nil
	d.Provider = func(string) (provider.Provider, error) {
		return lifecycle.Remembered{Memory: d.Memory, Nodes: []string{node}}, nil
	}
	d.Audit = Auditor(w.log, w.deps.Name, func(err error) { w.deps.Log.Error("not audited", "node", node, "error", err) })
	return d
}

// allowed asks the policy again, right before the key is sent, with the host key that was just seen; writes the verdict
// down, and uses up the approval that it took.
func (a *attempted) allowed(ctx context.Context, n waiting, seen lifecycle.Observation) error {
	if seen.HostKey != "" {
		n.shown = seen.HostKey
	}
	f, v := a.decide(ctx, n, true)
	if v.Decision != policy.Allow {
		a.held, a.facts = &v, f
		return errors.New(v.Why)
	}
	if v.Approved {
		if err := a.useApproval(n.Name, f.Approval); err != nil {
			return err
		}
	}
	return a.audit(ctx, n.Name, f, v)
}

// attempted is one attempt while it runs. Its methods are called one at a time.
type attempted struct {
	*watcher
	node, bootBefore string
	opened           bool
	held             *policy.Verdict // the policy's last word, when it was no
	facts            policy.Facts
}

// hear takes note of the moment when the machine took its key: its first report may come before lifecycle is done.
func (a *attempted) hear(e lifecycle.Event) {
	if e.Kind != lifecycle.EventEnd || e.Op != lifecycle.OpUnlock {
		return
	}
	a.opened = true
	a.change(a.node, func(rec *record, now time.Time) {
		rec.lock.opened(now, rec.doorSince, a.bootBefore)
		rec.lock.Why = "it took its key; its system starts"
		rec.doorSince = time.Time{}
		if rec.report != nil && rec.report.BootID != a.bootBefore { // its agent was faster than lifecycle's last look
			rec.lock.reported(now, rec.report.BootID)
		}
	})
}

// conclude judges how the attempt ended.
func (a *attempted) conclude(ctx context.Context, stage lifecycle.Stage, err error, pin string) {
	log := a.deps.Log.With("node", a.node, "stage", stage)
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		log.Info("unlocked")
		a.succeeded(ctx, stage)
	case errors.Is(err, lifecycle.ErrSuspect):
		log.Error("its system runs and is not believed", "error", err)
		a.succeeded(ctx, stage)
	case needsPerson(err):
		a.raise(ctx, a.node, err.Error(), pin)
	case a.held != nil:
		a.hold(ctx, a.node, a.facts, *a.held)
	case a.opened:
		log.Warn("it took its key, and its system does not answer yet", "error", err)
	default:
		log.Warn("not unlocked", "error", err)
		a.failed(ctx, err, pin)
	}
}

func (a *attempted) succeeded(ctx context.Context, stage lifecycle.Stage) {
	err := a.changeNow(ctx, a.node, func(rec *record, now time.Time) {
		switch stage {
		case lifecycle.Booted, lifecycle.Sealed, lifecycle.Converged, lifecycle.Serving:
			if now.Sub(rec.received) > a.late() {
				rec.lock.heard(now)
				rec.lock.Why = "its system answers; waiting for its agent"
			}
		default:
			if !a.opened { // it was gone when lifecycle looked
				rec.lock.set(now, LockUnknown, fmt.Sprintf("it was %s when it was looked at again", stage), "")
			}
		}
	})
	if err != nil {
		a.deps.Log.Error("unlock not written", "node", a.node, "error", err)
	}
}

// failed plans another attempt, later each time, or gives up.
func (a *attempted) failed(ctx context.Context, err error, pin string) {
	attempts := 0
	a.change(a.node, func(rec *record, now time.Time) {
		attempts = rec.lock.Attempts
		rec.nextVisit = now.Add(a.deps.Lifecycle.Pace.Of(min(time.Minute, 5*time.Second<<min(attempts-1, 4))))
		rec.lock.set(now, Locked, fmt.Sprintf("attempt %d: %v", attempts, err), "")
	})
	if attempts >= maxAttempts {
		a.raise(ctx, a.node, fmt.Sprintf("%d attempts came to nothing: %v", attempts, err), pin)
	}
}

// needsPerson: the machine called the key wrong, showed another host key or is not what it should be.
func needsPerson(err error) bool {
	var wrong *remote.HostKeyError
	var unlock *remote.UnlockError
	switch {
	case errors.As(err, &wrong), errors.Is(err, lifecycle.ErrWrongNode), errors.Is(err, lifecycle.ErrNotEncrypted), errors.Is(err, lifecycle.ErrForeignDisk):
		return true
	case errors.As(err, &unlock):
		return unlock.Final()
	}
	return false
}

// record journals what takes no time.
func (b *board) record(ctx context.Context, run, node, op string, intent any, words string) {
	j := b.deps.Lifecycle.Journal
	id, err := j.Begin(ctx, journal.Step{Run: run, Node: node, Op: op, Intent: intent})
	if err == nil {
		err = j.End(ctx, id, journal.Outcome{Status: journal.Done, Evidence: map[string]string{"why": words}})
	}
	if err != nil && !errors.Is(err, journal.ErrEnded) {
		b.deps.Log.Error("decision not journalled", "node", node, "op", op, "error", err)
	}
}

// expect marks a reboot as expected.
func (b *board) expect(ctx context.Context, node string, within time.Duration, who mtls.Name) error {
	until := b.now().Add(within)
	b.record(ctx, newRunID(), node, opExpect, map[string]any{"until": until.UTC()}, "asked for by "+who.String())
	return b.changeNow(ctx, node, func(rec *record, now time.Time) {
		rec.lock.ExpectedUntil, rec.nextVisit = until, time.Time{}
	})
}

// lasting is the journal for a process that outlives commands: a command that takes the fleet's lock ends the open
// steps of all others as interrupted, and a step of ours may be among them.
type lasting struct {
	lifecycle.Journal
	w *watcher
}

func (l lasting) End(ctx context.Context, id int64, o journal.Outcome) error {
	err := l.Journal.End(ctx, id, o)
	if errors.Is(err, journal.ErrEnded) {
		l.w.deps.Log.Warn("a command ended this step in the journal before it was over", "step", id, "status", o.Status)
		return nil
	}
	return err
}
