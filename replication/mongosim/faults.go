package mongosim

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/mongosim/fault"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

// Faults is the test's hand on a backend: the rules for single commands (see [fault.Control]) and what befalls the whole
// server. Every method takes effect before it returns.
type Faults struct {
	*fault.Control
	b *Backend
}

// Faults gives the control of this backend's faults.
func (b *Backend) Faults() Faults { return Faults{b.control, b} }

// Marks says how much is applied, journalled and on a majority.
func (f Faults) Marks() store.Marks { return f.b.store.Marks() }

// HoldJournal stops the journal: {j: true} waits, and a power cut loses what comes now. HoldMajority stops the other
// members: {w: "majority"} waits, and a failover loses what comes now.
func (f Faults) HoldJournal() { f.b.store.Hold(true, true) }

// HoldMajority is explained at HoldJournal.
func (f Faults) HoldMajority() { f.b.store.Hold(false, true) }

// Resume lets journal and majority follow again; who waits for them goes on.
func (f Faults) Resume() { f.b.store.Hold(false, false) }

// Journal journals all that is applied, as mongod does every 100 ms. Replicate also brings it to a majority.
func (f Faults) Journal() { f.b.store.Flush(store.Journalled) }

// Replicate is explained at Journal.
func (f Faults) Replicate() { f.b.store.Flush(store.Majority) }

// SetFull makes inserts and updates fail with OutOfDiskSpace, or stops that. Deletes go on.
func (f Faults) SetFull(full bool) { f.b.store.SetFull(full) }

// PowerCut takes the server down and everything with it that was not journalled: unjournalled writes, connections,
// cursors, held and parked commands. It returns how many writes were lost. Start brings the server back.
func (f Faults) PowerCut() (lost int) {
	f.setDown(true)
	lost = f.b.store.Revert(store.Journalled)
	f.b.cursors.clear()
	f.b.control.Interrupt(fault.ErrCut)
	f.b.conns.cut()
	return lost
}

// Start brings the server back after PowerCut or Stop.
func (f Faults) Start() { f.setDown(false) }

// Stop takes the server down in good order: all that is applied is journalled first.
func (f Faults) Stop() {
	f.b.store.Hold(false, false)
	f.b.store.Flush(store.Journalled)
	f.PowerCut()
}

func (f Faults) setDown(down bool) {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.b.down = down
}

// StepDown makes the node a secondary: writes are refused with NotWritablePrimary, held and parked commands end with
// InterruptedDueToReplStateChange, and what is not on a majority is still there.
func (f Faults) StepDown() {
	f.setSecondary(true)
	f.b.store.Revert(store.Applied)
	f.b.control.Interrupt(failure(codeStateChange, "operation was interrupted"))
}

// StepUp makes it the primary again, in a new term, with all it has.
func (f Faults) StepUp() {
	f.b.term.Add(1)
	f.setSecondary(false)
}

// Failover makes another member the primary, which has only what is on a majority, and puts it in this node's place: the
// rest is rolled back. Connections are cut, as clients meet them. It returns how many writes were lost.
func (f Faults) Failover() (lost int) {
	f.setSecondary(true)
	lost = f.b.store.Revert(store.Majority)
	f.b.control.Interrupt(failure(codeStateChange, "operation was interrupted"))
	f.b.cursors.clear()
	f.b.conns.cut()
	f.StepUp()
	return lost
}

func (f Faults) setSecondary(secondary bool) {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.b.secondary = secondary
}

// CutConnections closes every connection; the server stays.
func (f Faults) CutConnections() { f.b.conns.cut() }

// OpenCursors counts them, for tests that look for leaks.
func (f Faults) OpenCursors() int { return f.b.cursors.count() }

// Expire runs the TTL monitor once, as of now, and returns how many documents it deleted.
func (f Faults) Expire(ctx context.Context, now time.Time) (deleted int, err error) {
	r := &request{b: f.b, name: "ttl", era: f.b.store.Era(), arrived: time.Now()}
	for _, db := range f.b.store.Databases() {
		for _, c := range f.b.store.Collections(db) {
			for _, x := range c.Indexes {
				if x.ExpireAfterSeconds == nil {
					continue
				}
				n, err := r.expire(ctx, store.Namespace{DB: db, Coll: c.Name}, x, now)
				if deleted += n; err != nil {
					return deleted, asCommandError(err)
				}
			}
		}
	}
	return deleted, nil
}

// expire deletes what one TTL index finds: dates that are old enough, the earliest where an array holds several.
func (r *request) expire(ctx context.Context, ns store.Namespace, x *store.Spec, now time.Time) (n int, err error) {
	limit := bson.NewDateTimeFromTime(now.Add(-time.Duration(*x.ExpireAfterSeconds) * time.Second))
	filter := bson.D{{Key: x.Pattern[0].Key, Value: bson.D{{Key: "$lte", Value: limit}}}}
	s, err := r.selection(ns, filter, nil, nil)
	if err != nil {
		return 0, err
	}
	e := edit{selection: s, change: func(before *store.Doc, _ operators.Positions) (*store.Doc, error) {
		if x.Partial != nil && !x.Partial(before.Body) {
			return before, nil
		}
		return nil, nil
	}}
	err = r.many(ctx, e, func(_, after *store.Doc) { n += bint(after == nil) })
	return n, err
}

// Dump is every document of a collection in order of _id: what tests compare with byte for byte.
func (f Faults) Dump(db, coll string) []bson.Raw {
	var all []bson.Raw
	sort := []store.KeyPart{store.Part("_id", 1)}
	sc := f.b.store.Open(store.Namespace{DB: db, Coll: coll}, store.QueryOf(nil, sort))
	for d, ok := sc.Next(); ok; d, ok = sc.Next() {
		all = append(all, d.Raw)
	}
	return all
}
