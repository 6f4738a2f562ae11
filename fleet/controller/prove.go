package controller

import (
	"context"
	"errors"
	"time"

	"popfleet/inventory"
	"popfleet/provision/lifecycle"
)

// Proofs that come to nothing are tried again after a minute, then more and more seldom.
const (
	proofPause  = time.Minute
	longestWait = time.Hour
)

// claimProof says whether a node that reports runs a boot that nobody has proven, or whose key was not exchanged: it
// was opened by hand, or whoever opened it died before it was done; or whether a package run changed what it boots from. It
// takes the visit.
func (w *watcher) claimProof(node string) bool {
	if w.deps.Lifecycle.Boots == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, now := w.at(node), w.now()
	if rec.busy || !rec.sealed || rec.report == nil || now.Sub(rec.received) > w.overdue() || now.Before(rec.nextProof) || !rec.unproven() {
		return false
	}
	rec.busy = true
	return true
}

// warn passes on what a proof could not do and went on without.
func (w *watcher) warn(e lifecycle.Event) {
	if e.Kind == lifecycle.EventWarning {
		w.deps.Log.Warn("proof of the boot", "node", e.Node, "what", e.Text)
	}
}

func (rec *record) unproven() bool {
	good, q := rec.said.Good, rec.said.Suspect
	switch {
	case q != nil && q.Install == rec.install:
		return false // a person has to look first
	case good == nil || good.Install != rec.install:
		return true
	}
	return good.BootID != rec.report.BootID || good.Rotated != rec.report.BootID || rec.upgraded()
}

// upgraded: a package run on the node changed what it boots from, and nobody has judged that. It has to be before the next
// reboot (docs/decisions/017).
func (rec *record) upgraded() bool {
	said, good := rec.report.BootChanged, rec.said.Good
	return said != "" && said != good.Manifest && said != good.Declared
}

// prove proves the boot of a node that reports, unless somebody else is at it.
func (w *watcher) prove(ctx context.Context, n inventory.Resolved) {
	release, err := tryLease(w.cfg.Dir, n.Name, "fleet controller")
	if err != nil {
		w.change(n.Name, func(rec *record, now time.Time) { rec.nextProof = now.Add(w.deps.Lifecycle.Pace.Of(proofPause)) })
		return
	}
	defer release()
	r, err := w.deps.Prove(ctx, w.lifecycle(n.Name, w.warn), lifecycle.Node{Name: n.Name, PoP: n.PoP, Machine: n.Machine})
	if err == nil && r.Err != nil {
		err = r.Err
	}
	if ctx.Err() != nil {
		return
	}
	said, _ := w.said(n.Name) // said in the next round when it can't be read
	w.change(n.Name, func(rec *record, now time.Time) {
		if rec.said = said; err == nil && !rec.unproven() {
			rec.proofs, rec.nextProof = 0, time.Time{}
			return
		}
		rec.nextProof = now.Add(w.deps.Lifecycle.Pace.Of(min(longestWait, proofPause<<min(rec.proofs, 10))))
		rec.proofs++
	})
	switch log := w.deps.Log.With("node", n.Name); {
	case errors.Is(err, lifecycle.ErrSuspect):
		log.Error("its system runs and is not believed", "error", err)
	case err != nil:
		log.Warn("boot not proven", "error", err)
	}
}
