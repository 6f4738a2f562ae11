package sim

import (
	"bytes"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/core"
)

// onTwin (ack means on the twin): when a client is answered, another node of the PoP has its write in its durable log.
func (w *world) onTwin(n *node, o *op) error {
	alone := true
	for _, t := range w.nodes {
		if t == n || pop(t) != pop(n) {
			continue
		}
		alone = false
		if t.first[n.id] >= o.seq || slices.ContainsFunc(t.log, func(e core.Entry) bool { return e.Origin == n.id && e.Seq == o.seq }) {
			return nil
		}
	}
	if alone {
		return nil
	}
	return w.broken("ack means on the twin", "write %d of node %d is acknowledged and in no other log", o.seq, n.id)
}

func pop(n *node) string { return n.cfg.Members[n.id-1].PoP }

// readBack (read your writes): a read with a session's token has everything the session was told it wrote.
func (w *world) readBack(o *op, r core.Reply) error {
	if r.Result != core.Acknowledged {
		return nil
	}
	have := tickets(r.Doc)
	for _, t := range o.must {
		if !slices.Contains(have, t) {
			return w.broken("read your writes", "client %d reads at node %d without its write %d: %v", o.session, o.node, t, have)
		}
	}
	return nil
}

func tickets(doc bson.D) []int64 {
	list, _ := bsonval.Field(doc, "list").(bson.A)
	out := make([]int64, 0, len(list))
	for _, v := range list {
		if t, ok := v.(int64); ok {
			out = append(out, t)
		}
	}
	return out
}

// check looks into all backends while things fail: each list has as many tickets as its counter says, none twice.
func (w *world) check() error {
	for _, n := range w.nodes {
		for i := range ledgers {
			if err := w.ledgerAdds(n, n.visible(ledgerKey(i))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *node) visible(k core.Key) bson.D { return n.slot(k).State().Visible() }

// ledgerAdds (exactly once): an update is all or nothing, and happens once however often it is sent.
func (w *world) ledgerAdds(n *node, doc bson.D) error {
	have := tickets(doc)
	if count := bsonval.Field(doc, "n"); count != any(int64(len(have))) {
		return w.broken("exactly once", "node %d counts %v writes and lists %v", n.id, count, have)
	}
	sorted := slices.Clone(have)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(have) {
		return w.broken("exactly once", "node %d lists a write twice: %v", n.id, have)
	}
	return nil
}

// settled: everybody has and has applied everything.
func (w *world) settled() bool {
	first := w.nodes[0]
	for _, n := range w.nodes {
		if !n.up || !n.m.Idle() || !n.m.Applied().Covers(first.m.Have()) || !first.m.Applied().Covers(n.m.Have()) {
			return false
		}
	}
	return w.now > faulty+maxTime*3
}

func (w *world) unsettled() string {
	out := ""
	for _, n := range w.nodes {
		out += n.m.Describe() + "; "
	}
	return out
}

// finalChecks are the invariants of the state when nothing happens any more.
func (w *world) finalChecks() error {
	if err := w.check(); err != nil {
		return err
	}
	for _, f := range []func() error{w.converged, w.nothingLost, w.countersExact, w.maximaExact, w.nothingInvented, w.deadStayDead} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// converged (strong eventual consistency): equal bytes and equal digests everywhere.
func (w *world) converged() error {
	a := w.nodes[0]
	for _, b := range w.nodes[1:] {
		for _, k := range union(a.keys, b.keys) {
			x, y := a.slot(k).State(), b.slot(k).State()
			vx, _ := bson.Marshal(x.Visible())
			vy, _ := bson.Marshal(y.Visible())
			if !bytes.Equal(vx, vy) {
				return w.broken("convergence", "%v at %d and %v at %d", x.Document(), a.id, y.Document(), b.id)
			}
			dx, _ := x.Digest()
			dy, _ := y.Digest()
			if x.Alive() && dx != dy {
				return w.broken("convergence", "digests of %v at %d and %v at %d", x.Document(), a.id, y.Document(), b.id)
			}
		}
	}
	return nil
}

func union(a, b []core.Key) []core.Key {
	out := slices.Clone(a)
	for _, k := range b {
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// nothingLost (no lost acknowledgement): what a client was told is there.
func (w *world) nothingLost() error {
	for i := range ledgers {
		have := tickets(w.nodes[0].visible(ledgerKey(i)))
		for _, o := range w.asked {
			if o.ledger != i || o.reads {
				continue
			}
			if o.happened && !slices.Contains(have, o.ticket) {
				return w.broken("no lost acknowledgement", "write %d of node %d: %v", o.ticket, o.node, have)
			}
			if o.never && slices.Contains(have, o.ticket) {
				return w.broken("no invention", "write %d of node %d was refused: %v", o.ticket, o.node, have)
			}
		}
	}
	return nil
}

// countersExact: the counter is the winning reset's value plus the increments that the reset did not see. A reset that
// was computed more than once saw what it saw in one of those.
func (w *world) countersExact() error {
	for i := range ledgers {
		doc := w.nodes[0].visible(ledgerKey(i))
		c, _ := bsonval.Field(doc, "c").(int64)
		views := [][]int64{nil}
		if winner := w.op(c / 1_000_000); winner != nil {
			views = winner.views
		}
		var fits []int64
		for _, view := range views {
			fits = append(fits, w.unseen(doc, view))
		}
		if n := c % 1_000_000; !slices.Contains(fits, n) {
			return w.broken("counters exact", "%d increments after reset %d, not one of %d: %v", n, c/1_000_000, fits, doc)
		}
	}
	return nil
}

// unseen counts the increments in a ledger that a view of it did not have.
func (w *world) unseen(doc bson.D, view []int64) int64 {
	n := int64(0)
	for _, t := range tickets(doc) {
		if o := w.op(t); o != nil && o.kind == "append" && !slices.Contains(view, t) {
			n++
		}
	}
	return n
}

func (w *world) op(ticket int64) *op { return w.ops[uint64(ticket)] }

func (w *world) maximaExact() error {
	for i := range ledgers {
		doc := w.nodes[0].visible(ledgerKey(i))
		var want int64
		for _, t := range tickets(doc) {
			if o := w.op(t); o != nil && o.kind == "append" {
				want = max(want, o.bid)
			}
		}
		if hi := bsonval.Field(doc, "hi"); hi != any(want) {
			return w.broken("maxima exact", "%v, not %d: %v", hi, want, doc)
		}
	}
	return nil
}

// nothingInvented: a thing's value was written to it, by a write that was not refused.
func (w *world) nothingInvented() error {
	for i := range things {
		doc := w.nodes[0].visible(thingKey(i))
		v, there := bsonval.Field(doc, "v").(int64)
		if o := w.op(v); there && (o == nil || o.key != thingKey(i) || o.never) {
			return w.broken("no invention", "nobody wrote %d: %v", v, doc)
		}
	}
	return nil
}

// deadStayDead: the life that an acknowledged delete ended is nowhere.
func (w *world) deadStayDead() error {
	for _, o := range w.asked {
		if o.kind != "delete" || !o.happened || o.killed == 0 {
			continue
		}
		for _, n := range w.nodes {
			if life := bsonval.Field(n.visible(o.key), "life"); life == any(o.killed) {
				return w.broken("the dead stay dead", "life %d was ended by %d: %v", o.killed, o.ticket, n.slot(o.key).State().Document())
			}
			if s := n.slot(o.key); s.HasDoc && !s.State().Alive() {
				return w.broken("the dead stay dead", "node %d still has a document that is deleted", n.id)
			}
		}
	}
	return nil
}

func (w *world) tally(n *node) {
	s := n.m.Stats()
	w.report.Reissued += s.Reissued
	w.report.Voided += s.Voided
	w.report.Retried += s.Retried
}
