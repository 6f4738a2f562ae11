package controller

import (
	"fmt"
	"time"

	"popfleet/agents"
	"popfleet/inventory"
)

// status is everything the controller knows, at one moment.
func (b *board) status() Status {
	fleet := b.inventory()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	s := Status{V: 1, Time: now.UTC(), Fleet: fleet.Name}
	nodes := fleet.Resolved()
	for _, n := range nodes {
		s.Nodes = append(s.Nodes, b.node(n, now))
	}
	for _, to := range nodes {
		for _, from := range nodes {
			if from.Name != to.Name {
				s.Pairs = append(s.Pairs, b.pair(from.Name, to.Name, now))
			}
		}
	}
	return s
}

func (b *board) node(n inventory.Resolved, now time.Time) Node {
	rec := b.at(n.Name)
	b.judge(n.Name, rec, now)
	view := Node{Node: n.Name, PoP: n.PoP, Address: rec.address, Freshness: rec.freshness, Since: utc(rec.since),
		HeardBy: b.heardBy(n.Name, now), SystemAnswers: rec.systemAnswers, Lock: rec.lock.Lock, Report: rec.report}
	view.Lock.Since, view.Lock.ExpectedUntil = utc(view.Lock.Since), utc(view.Lock.ExpectedUntil)
	if q := rec.said.Suspect; q != nil && (rec.install == "" || q.Install == rec.install) {
		view.Suspect = &Suspect{Since: utc(q.Since), Why: q.Why, Next: "fleet unlock --trust " + n.Name}
	}
	if rec.said.Never.Holds(now) {
		view.Never = rec.said.Never.By
	}
	if rec.report != nil {
		age := now.Sub(rec.received).Seconds()
		view.LastReportAgeSec = &age
	}
	return view
}

// pair is the receiver's word, as long as it is fresh.
func (b *board) pair(from, to string, now time.Time) Pair {
	unknown := Pair{Pair: agents.Pair{From: from, State: PairUnknown}, To: to}
	rec := b.at(to)
	switch {
	case rec.report == nil:
		unknown.Why = to + " never reported"
		return unknown
	case now.Sub(rec.received) > b.late():
		unknown.Why = fmt.Sprintf("%s has not reported for %s", to, now.Sub(rec.received).Round(time.Second))
		return unknown
	}
	for _, p := range rec.report.Pairs {
		if p.From == from {
			return Pair{Pair: p, To: to}
		}
	}
	unknown.Why = to + " says nothing of it"
	return unknown
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
