package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller/audit"
	"popfleet/inventory"
)

// board is the controller's memory of all nodes. Its methods may be called from any goroutine.
type board struct {
	cfg   Config
	deps  Deps
	store *store
	log   audit.Log
	now   func() time.Time

	mu      sync.Mutex
	fleet   *inventory.Fleet   // the last good one
	read    time.Time          // when it was read
	records map[string]*record // by node; also of nodes that left the fleet file
}

// fleetEvery is how often the fleet file is read again.
const fleetEvery = 10 * time.Second

// newBoard begins with what the controller before this one knew. A node that was being unlocked then is looked at anew.
func newBoard(ctx context.Context, cfg Config, d Deps, s *store) (*board, error) {
	fleet, err := d.Fleet()
	if err != nil {
		return nil, err
	}
	if fleet.Name != d.Lifecycle.Fleet {
		return nil, fmt.Errorf("controller: the fleet file is of %q, the vault of %q", fleet.Name, d.Lifecycle.Fleet)
	}
	records, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	b := &board{cfg: cfg, deps: d, store: s, log: AuditFile(cfg.Dir), now: wallClock, fleet: fleet, records: records}
	b.read = b.now()
	for _, rec := range records {
		if !rec.lock.Alarm {
			rec.lock.State, rec.lock.Why, rec.lock.Since = LockUnknown, "the controller started and has not looked yet", b.now()
		}
	}
	return b, nil
}

// wallClock has no monotonic part, which stands still while a machine sleeps: a node that was silent that long would
// seem alive to the unlock policy.
func wallClock() time.Time { return time.Now().Round(0) }

// late is how long a node may be silent before its reports are late.
func (b *board) late() time.Duration { return 3 * b.cfg.Interval }

// overdue is how long it may be silent before it is looked at: earlier than late, so that a locked node waits less.
func (b *board) overdue() time.Duration { return b.cfg.Interval * 3 / 2 }

// inventory is the fleet file as last read well.
func (b *board) inventory() *inventory.Fleet {
	b.mu.Lock()
	due := b.now().Sub(b.read) >= fleetEvery
	fleet := b.fleet
	if due {
		b.read = b.now()
	}
	b.mu.Unlock()
	if !due {
		return fleet
	}
	fresh, err := b.deps.Fleet()
	if err != nil || fresh.Name != fleet.Name {
		b.deps.Log.Warn("fleet file not read, the one before stays", "error", err)
		return fleet
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fleet = fresh
	return fresh
}

// at gives the record of a node, made when absent. b.mu is held.
func (b *board) at(node string) *record {
	rec := b.records[node]
	if rec == nil {
		rec = &record{}
		rec.lock.State = LockUnknown
		b.records[node] = rec
	}
	return rec
}

// accept takes a node's reports, newest last, and returns the sequence number of the newest.
func (b *board) accept(node string, reports []agents.Report) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec, now := b.at(node), b.now()
	for i := range reports {
		if r := &reports[i]; rec.newer(r, now, b.late()) {
			rec.take(r, now)
		}
	}
	b.judge(node, rec, now)
	return reports[len(reports)-1].Seq
}

// change does f to a node's record; the change is on disk within a second.
func (b *board) change(node string, f func(rec *record, now time.Time)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := b.at(node)
	f(rec, b.now())
	rec.dirty = true
}

// changeNow is change, and on disk when it returns: what must be remembered before a key is sent, and after.
func (b *board) changeNow(ctx context.Context, node string, f func(rec *record, now time.Time)) error {
	b.mu.Lock()
	rec := b.at(node)
	f(rec, b.now())
	line := rowOf(node, rec)
	b.mu.Unlock()
	return b.store.save(ctx, []row{line})
}

// judge keeps freshness and since when it lasts. b.mu is held.
func (b *board) judge(node string, rec *record, now time.Time) {
	is := b.freshness(node, rec, now)
	if is == rec.freshness {
		return
	}
	if rec.freshness != "" {
		rec.since = now
	} else if !rec.received.IsZero() {
		rec.since = rec.received
	}
	rec.freshness = is
}

func (b *board) freshness(node string, rec *record, now time.Time) string {
	switch {
	case rec.report == nil:
		return Never
	case now.Sub(rec.received) <= b.late():
		return Fresh
	case rec.systemAnswers != nil && !*rec.systemAnswers && rec.doorSince.IsZero() && len(b.heardBy(node, now)) == 0:
		return Unreachable
	}
	return Late
}

// heardBy are the peers whose fresh reports say that they hear node. b.mu is held.
func (b *board) heardBy(node string, now time.Time) []string {
	var peers []string
	for _, name := range slices.Sorted(maps.Keys(b.records)) {
		rec := b.records[name]
		if name == node || rec.report == nil || now.Sub(rec.received) > b.late() {
			continue
		}
		for _, p := range rec.report.Pairs {
			if p.From == node && p.State == "connected" {
				peers = append(peers, name)
			}
		}
	}
	return peers
}

// keepEvery bounds what a crash loses.
const keepEvery = time.Second

// keep writes changed records until ctx ends.
func (b *board) keep(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := b.flush(ctx); err != nil && ctx.Err() == nil {
				b.deps.Log.Error("reports not written", "error", err)
			}
		}
	}
}

// flush writes what changed, in one transaction. What could not be written is written next time.
func (b *board) flush(ctx context.Context) error {
	b.mu.Lock()
	var rows []row
	for name, rec := range b.records {
		if rec.dirty {
			rows = append(rows, rowOf(name, rec))
			rec.dirty = false
		}
	}
	b.mu.Unlock()
	err := b.store.save(ctx, rows)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, r := range rows {
			b.records[r.node].dirty = true
		}
	}
	return err
}
