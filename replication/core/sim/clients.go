package sim

import (
	"encoding/binary"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/core"
	"popfleet/replication/crdt"
)

// The documents: ledgers are there from the beginning and never deleted; every write to one appends its ticket, counts
// one up and bids for a maximum. Things come and go.
const (
	ledgers = 2
	things  = 3
)

type clients struct {
	ops     map[uint64]*op // by ticket
	asked   []*op
	waits   map[uint64]*op // requests and reads under way, by the machine's ticket
	next    uint64
	adopted map[core.Key]bson.D
	pair    bool
	// patient clients send again what nobody answered. Where the log forgets soon they must not.
	patient bool
	// sessions: what each client has written to each ledger, and what it must see.
	sessions []clientSession
}

type clientSession struct {
	token crdt.Vector
	must  [ledgers][]int64
}

// op is one client operation; sending it again keeps its ticket.
type op struct {
	ticket  int64
	key     core.Key
	ledger  int // -1 for things
	kind    string
	session int
	node    crdt.Origin
	bid     int64
	// What came of it. An op may be unknown: nobody answered.
	acked, happened, never bool
	seq                    uint64
	reads                  bool
	after                  crdt.Vector
	must                   []int64
	killed                 int64     // the life that a delete saw
	views                  [][]int64 // what was in the list when it was computed, each time it was
	tries                  int
}

func newClients(cfg core.Config) clients {
	c := clients{ops: map[uint64]*op{}, waits: map[uint64]*op{}, adopted: map[core.Key]bson.D{}, pair: cfg.Durability == core.Pair, patient: cfg.Keep > 0}
	for i := range ledgers {
		c.adopted[ledgerKey(i)] = bson.D{{Key: "_id", Value: int32(i)}, {Key: "list", Value: bson.A{}},
			{Key: "n", Value: int64(0)}, {Key: "c", Value: int64(0)}, {Key: "hi", Value: int64(0)}}
	}
	c.sessions = make([]clientSession, 3)
	for i := range c.sessions {
		c.sessions[i].token = crdt.Vector{}
	}
	return c
}

func ledgerKey(i int) core.Key { return core.KeyOf("ledger", int32(i)) }
func thingKey(i int) core.Key  { return core.KeyOf("thing", int32(i)) }

// issue sends some client's next request, or one it did not get an answer to again.
func (w *world) issue() error {
	if w.calm {
		return nil
	}
	w.next++
	o := &op{ticket: int64(w.next), session: w.IntN(len(w.sessions)), node: crdt.Origin(1 + w.IntN(len(w.nodes))), bid: int64(w.IntN(1000)), ledger: -1}
	switch k := w.IntN(20); {
	case k < 9:
		o.ledger, o.kind = w.IntN(ledgers), []string{"append", "append", "reset"}[w.IntN(3)]
		o.key = ledgerKey(o.ledger)
	case k < 13:
		o.reads, o.ledger = true, w.IntN(ledgers)
		o.key, o.after = ledgerKey(o.ledger), w.sessions[o.session].token.Clone()
		o.must = append([]int64(nil), w.sessions[o.session].must[o.ledger]...)
	default:
		i := w.IntN(things)
		o.key, o.kind = thingKey(i), []string{"put", "put", "set", "delete", "bump"}[w.IntN(5)]
	}
	w.ops[w.next] = o
	w.asked = append(w.asked, o)
	w.ask(o)
	return nil
}

func (w *world) ask(o *op) {
	n := w.nodes[o.node-1]
	if !n.up {
		o.never = o.tries == 0
		return
	}
	o.tries++
	w.report.Requests++
	w.next++
	w.waits[w.next] = o
	w.trace("%d asked by client %d: %s %d of %q (ticket %d)", n.id, o.session, o.kind, o.ticket, o.key.NS, w.next)
	if o.reads {
		w.must(n.step(core.Read{Ticket: w.next, Key: o.key, After: o.after, Until: n.now - n.born + 300}))
		return
	}
	retry := crdt.Retry{Session: binary.BigEndian.AppendUint16(nil, uint16(o.session)), Number: o.ticket}
	w.must(n.step(core.Request{Ticket: w.next, Key: o.key, Change: o.change, Retry: retry}))
}

// must keeps a violation found while asking for the next event to report.
func (w *world) must(err error) {
	if err != nil {
		w.after(0, "violation", func() error { return err })
	}
}

var errNothing = errors.New("nothing to do it to")

func (o *op) change(doc bson.D) core.Change {
	path := func(p string, kind crdt.OpKind, v any) crdt.Op {
		return crdt.Op{Kind: kind, Path: []string{p}, Value: v}
	}
	if o.kind == "reset" {
		o.views = append(o.views, tickets(doc))
	}
	push := crdt.Op{Kind: crdt.Push, Path: []string{"list"}, Values: []any{o.ticket}}
	switch {
	case o.kind == "append":
		return core.Change{Kind: core.Update, Ops: []crdt.Op{path("c", crdt.Inc, int64(1)), push, path("n", crdt.Inc, int64(1)), path("hi", crdt.Max, o.bid)}}
	case o.kind == "reset":
		return core.Change{Kind: core.Update, Ops: []crdt.Op{path("c", crdt.Set, o.ticket*1_000_000), push, path("n", crdt.Inc, int64(1))}}
	case doc == nil && o.kind == "put":
		return core.Change{Kind: core.Insert, Doc: bson.D{{Key: "_id", Value: int32(0)}, {Key: "life", Value: o.ticket}, {Key: "v", Value: o.ticket}}}
	case doc == nil:
		return core.Change{Err: errNothing}
	case o.kind == "delete":
		o.killed, _ = bsonval.Field(doc, "life").(int64)
		return core.Change{Kind: core.Delete}
	case o.kind == "bump":
		return core.Change{Kind: core.Update, Ops: []crdt.Op{path("b", crdt.Inc, int32(1)), {Kind: crdt.AddToSet, Path: []string{"s"}, Values: []any{o.ticket % 3}}}}
	}
	return core.Change{Kind: core.Update, Ops: []crdt.Op{path("v", crdt.Set, o.ticket)}}
}

// replied takes a machine's answer. Some answers get lost on the way to the client, who then asks again.
func (w *world) replied(n *node, r core.Reply) error {
	o := w.waits[r.Ticket]
	if o == nil {
		return nil
	}
	delete(w.waits, r.Ticket)
	w.trace("%d answers ticket %d (%s %d): result %d %v %v", n.id, r.Ticket, o.kind, o.ticket, r.Result, r.Token, r.Err)
	if o.reads {
		return w.readBack(o, r)
	}
	switch r.Result {
	case core.Acknowledged:
		if err := w.acknowledged(n, o, r); err != nil {
			return err
		}
	case core.Unsure:
		o.happened = true
	case core.Failed, core.Refused:
		if o.tries == 1 && !o.happened {
			o.never = true
		}
	}
	if !o.acked && !o.never && !w.calm || w.IntN(8) == 0 && o.tries < 3 && !w.calm && !o.never {
		w.again(o)
	}
	return nil
}

func (w *world) again(o *op) {
	w.after(int64(w.IntN(400)), "ask again", func() error {
		if !w.calm && w.patient && o.tries < 4 {
			w.ask(o)
		}
		return nil
	})
}

func (w *world) acknowledged(n *node, o *op, r core.Reply) error {
	if !r.Repeated {
		o.seq = r.Token[n.id]
	}
	if !o.acked {
		w.report.Acked++
	}
	o.acked, o.happened = true, true
	if o.ledger >= 0 && o.seq > 0 {
		s := &w.sessions[o.session]
		s.token.Raise(r.Token)
		s.must[o.ledger] = append(s.must[o.ledger], o.ticket)
	}
	if w.pair && o.seq > 0 && !r.Repeated {
		return w.onTwin(n, o)
	}
	return nil
}

// crashed: nobody will answer what the node was asked. The clients ask again.
func (w *world) crashed(n *node) {
	for ticket := uint64(1); ticket <= w.next; ticket++ {
		o := w.waits[ticket]
		if o == nil || o.node != n.id {
			continue
		}
		delete(w.waits, ticket)
		if !o.reads {
			w.again(o)
		}
	}
}
