package controller

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"popfleet/fleet/controller/audit"
	"popfleet/fleet/controller/policy"
	"popfleet/internal/journal"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
)

// AuditFile is the chained log of decisions about keys in an operator's .fleet folder.
func AuditFile(dir string) audit.Log { return audit.Log{Path: filepath.Join(dir, "audit.jsonl")} }

func (w *watcher) settings() policy.Settings {
	return policy.Settings{RecentlyAlive: w.cfg.RecentlyAlive, UnlocksPerHour: w.cfg.UnlocksPerHour, CrossCheck: w.cfg.CrossCheck}
}

// crossCheckEvery bounds how often a provider is asked about a node that is held.
const crossCheckEvery = time.Minute

// waiting is a locked node that somebody decides about.
type waiting struct {
	inventory.Resolved
	state  vault.NodeState
	pinned string // fingerprints of its initramfs' host key
	shown  string
}

// decide asks the policy. The provider is asked last, and only when nothing else holds the node: its API has a budget.
// fresh asks it whatever it said a moment ago, as right before a key is sent.
func (w *watcher) decide(ctx context.Context, n waiting, fresh bool) (policy.Facts, policy.Verdict) {
	f, err := w.facts(ctx, n)
	if err != nil {
		w.deps.Log.Error("what was said of the node cannot be read", "node", n.Name, "error", err)
		return f, policy.Verdict{Decision: policy.Hold, Why: "what was said of it cannot be read: " + err.Error()}
	}
	s := w.settings()
	f.Provider = policy.CrossCheck{Done: true}
	if v := s.Decide(f); v.Decision != policy.Allow {
		f.Provider = policy.CrossCheck{Why: "not asked: other rules decide"}
		s.CrossCheck = policy.WhenPossible
		return f, s.Decide(f)
	}
	f.Provider = w.crossCheck(ctx, n, fresh)
	return f, s.Decide(f)
}

// facts gathers what is known. It stays the same as long as nobody hears the node and nobody says anything, so that a
// decision does not change while it waits.
func (w *watcher) facts(ctx context.Context, n waiting) (policy.Facts, error) {
	said, err := w.said(n.Name)
	w.mu.Lock()
	rec := w.at(n.Name)
	f := policy.Facts{
		Now: w.now().UTC(), Asker: policy.Controller, Who: w.deps.Name, FirstSeen: utc(rec.lock.FirstSeen), LastHeard: utc(rec.received),
		ExpectedUntil: utc(rec.lock.ExpectedUntil), UnlocksInHour: len(recent(rec.lock.Unlocks, w.now())),
		Pinned: []string{n.pinned}, Shown: n.shown, Never: said.Never, Approval: said.Approval, Suspect: said.Suspect,
	}
	w.mu.Unlock()
	if e := said.Expected; e != nil && e.Until.After(f.ExpectedUntil) {
		f.ExpectedUntil = utc(e.Until)
	}
	f.LastAlive = w.lastAlive(ctx, n.Name, f.FirstSeen)
	return f, err
}

// said reads what people and commands said of a node's unlocking, and keeps it for the status.
func (b *board) said(node string) (vault.UnlockState, error) {
	boots := b.deps.Lifecycle.Boots
	if boots == nil {
		return vault.UnlockState{}, nil
	}
	said, err := boots.UnlockState(node)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.at(node).said = said
	}
	return said, err
}

func (w *watcher) crossCheck(ctx context.Context, n waiting, fresh bool) policy.CrossCheck {
	w.mu.Lock()
	rec := w.at(n.Name)
	last, at := rec.cross, rec.crossAt
	w.mu.Unlock()
	if !fresh && !at.IsZero() && w.now().Sub(at) < crossCheckEvery {
		return last
	}
	said, _ := w.said(n.Name) // read without error a moment ago
	c := CrossCheck(ctx, w.deps.Activity, w.deps.Lifecycle.Journal, n.Resolved, n.state, said.Good)
	w.mu.Lock()
	defer w.mu.Unlock()
	rec.cross, rec.crossAt = c, w.now()
	return c
}

// history is what a journal that can be read offers.
type history interface {
	Observations(ctx context.Context, node string, limit int) ([]journal.Observation, error)
}

// aliveStages are those of a node that proved to run from its own disk, with its pinned host key.
var aliveStages = map[string]bool{
	string(lifecycle.Booted): true, string(lifecycle.Sealed): true, string(lifecycle.Converged): true, string(lifecycle.Serving): true,
}

// lastAlive is when a command on this folder last saw the node running, before it was locked.
func (w *watcher) lastAlive(ctx context.Context, node string, before time.Time) (last time.Time) {
	j, ok := w.deps.Lifecycle.Journal.(history)
	if !ok {
		return last
	}
	seen, err := j.Observations(ctx, node, 50)
	if err != nil {
		w.deps.Log.Warn("journal not read", "node", node, "error", err)
	}
	for _, o := range seen {
		if aliveStages[o.Stage] && o.At.After(last) && o.At.Before(before) {
			last = o.At
		}
	}
	return utc(last)
}

// useApproval takes a person's approval away before the key that it allows is sent: it is good for one.
func (w *watcher) useApproval(node string, used *vault.Order) error {
	boots := w.deps.Lifecycle.Boots
	if boots == nil {
		return errors.New("there is no approval")
	}
	return UseApproval(boots, node, used)
}

// UseApproval takes away the approval that a verdict was based on, or fails when it is not there any more.
func UseApproval(boots lifecycle.Boots, node string, used *vault.Order) error {
	_, err := boots.UpdateUnlock(node, func(s *vault.UnlockState) error {
		if s.Approval == nil || used == nil || !s.Approval.At.Equal(used.At) {
			return errors.New("its approval was used or taken back by somebody else")
		}
		s.Approval, s.Used = nil, used.At
		return nil
	})
	return err
}

// Ops of the audited decisions, in the journal.
const (
	opAllow  = "allow-unlock"
	opHold   = "hold-unlock"
	opNever  = "never-unlock"
	opExpect = "expect-reboot"
)

var ops = map[policy.Decision]string{policy.Allow: opAllow, policy.Hold: opHold, policy.Never: opNever}

// audit writes a decision down, in the journal and in the chained log, when it is another one than before. An allowance
// that can't be written down is none.
func (w *watcher) audit(ctx context.Context, node string, f policy.Facts, v policy.Verdict) error {
	fresh := false
	w.change(node, func(rec *record, _ time.Time) {
		if d := string(v.Decision) + ": " + v.Why; rec.lock.Decision != d || v.Decision == policy.Allow {
			rec.lock.Decision, rec.lock.LastDecision, fresh = d, d, true
		}
	})
	if !fresh {
		return nil
	}
	w.deps.Log.Info("decided", "node", node, "decision", v.Decision, "why", v.Why)
	w.record(ctx, w.runID, node, ops[v.Decision], f, v.Why)
	err := WriteDecision(w.log, node, f, v)
	if err != nil {
		w.deps.Log.Error("decision not written", "node", node, "error", err)
	}
	return err
}

// WriteDecision puts one verdict into the chained log.
func WriteDecision(l audit.Log, node string, f policy.Facts, v policy.Verdict) error {
	reasons, err := json.Marshal(v.Findings)
	if err != nil {
		return err
	}
	evidence, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return l.Append(audit.Entry{Time: f.Now, Who: f.Who, Node: node, Verdict: string(v.Decision), Why: v.Why, Reasons: reasons, Evidence: evidence})
}

// Auditor gives lifecycle.Deps.Audit: what became of keys and boots goes into the chained log.
func Auditor(l audit.Log, who string, failed func(error)) func(ctx context.Context, node, verdict, why string, evidence any) {
	return func(_ context.Context, node, verdict, why string, evidence any) {
		text, err := json.Marshal(evidence)
		if err == nil {
			err = l.Append(audit.Entry{Who: who, Node: node, Verdict: verdict, Why: why, Evidence: text})
		}
		if err != nil {
			failed(err)
		}
	}
}
