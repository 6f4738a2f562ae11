package mongosim

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/codec"
	"popfleet/replication/mongosim/store"
)

const (
	firstBatch     = 101      // documents, where the client names no number
	maxBatchBytes  = 16 << 20 // of one reply
	cursorIdle     = 10 * time.Minute
	cursorsAtMost  = 100_000
	smallestCursor = 1 << 32 // so that an id never looks like a small number
)

// source hands out documents; nil at the end.
type source interface {
	next(ctx context.Context) (bson.Raw, error)
}

// list is a source of documents that are all there.
type list []bson.Raw

func (l *list) next(context.Context) (bson.Raw, error) {
	if len(*l) == 0 {
		return nil, nil
	}
	d := (*l)[0]
	*l = (*l)[1:]
	return d, nil
}

func listOf(docs []bson.D) (*list, error) {
	var l list
	for _, d := range docs {
		raw, err := codec.Encode(d)
		if err != nil {
			return nil, err
		}
		l = append(l, raw)
	}
	return &l, nil
}

// cursor is an open one. Who works on it has taken it out of the table or holds its busy mark.
type cursor struct {
	id      int64
	ns      store.Namespace
	session string
	from    source
	ahead   bson.Raw // read, and too large for the batch it came up for
	used    time.Time
	busy    bool
}

// cursors is the table of open ones.
type cursors struct {
	mu   sync.Mutex
	open map[int64]*cursor
}

func (t *cursors) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.open)
}

func (t *cursors) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// add keeps a cursor, and closes those that nobody asked for in ten minutes when there are many.
func (t *cursors) add(c *cursor, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open)%1024 == 1023 {
		for id, o := range t.open {
			if !o.busy && now.Sub(o.used) > cursorIdle {
				delete(t.open, id)
			}
		}
	}
	if len(t.open) >= cursorsAtMost {
		return failure(codeBadValue, "%d cursors are open", len(t.open))
	}
	t.open[c.id] = c
	return nil
}

func (t *cursors) take(id int64) (*cursor, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.open[id]
	if c == nil {
		return nil, failure(codeCursorNotFound, "cursor id %d not found", id)
	}
	if c.busy {
		return nil, failure(codeCursorInUse, "cursor id %d is already in use", id)
	}
	c.busy = true
	return c, nil
}

// giveBack ends the use of a cursor and forgets it if it is done.
func (t *cursors) giveBack(c *cursor, done bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.busy, c.used = false, now; done {
		delete(t.open, c.id)
	}
}

func (t *cursors) kill(id int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.open[id]
	delete(t.open, id)
	return ok
}

// batch reads up to n documents, or as many as fit for n < 0.
func (c *cursor) batch(ctx context.Context, n int) (docs bson.A, done bool, err error) {
	docs = bson.A{}
	for bytes := 0; n < 0 || len(docs) < n; {
		d := c.ahead
		if c.ahead = nil; d == nil {
			if d, err = c.from.next(ctx); err != nil {
				return nil, false, err
			}
		}
		if d == nil {
			return docs, true, nil
		}
		if bytes += len(d) + 8; bytes > maxBatchBytes && len(docs) > 0 {
			c.ahead = d
			return docs, false, nil
		}
		docs = append(docs, d)
	}
	return docs, false, nil
}

// answer makes the reply of a command that opens a cursor.
func (r *request) answer(ctx context.Context, ns store.Namespace, from source, batch int, single bool) (bson.D, error) {
	c := &cursor{ns: ns, session: r.session, from: from, used: r.b.options.Now()}
	docs, done, err := c.batch(ctx, batch)
	if err != nil {
		return nil, err
	}
	if !done && !single && batch > 0 && len(docs) == batch { // look one ahead: a result that just fits needs no getMore
		if c.ahead == nil {
			c.ahead, err = from.next(ctx)
		}
		if err != nil {
			return nil, err
		}
		done = c.ahead == nil
	}
	if !done && !single {
		c.id = r.b.cursorID()
		if err := r.b.cursors.add(c, c.used); err != nil {
			return nil, err
		}
	}
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "firstBatch", Value: docs}, {Key: "id", Value: c.id}, {Key: "ns", Value: ns.String()}}}}, nil
}

func (b *Backend) cursorID() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return smallestCursor + b.rand.Int64N(1<<62)
}

func getMore(ctx context.Context, r *request) (bson.D, error) {
	id, exact := bsonval.ToInt64(r.body[0].Value)
	if !bsonval.IsNumber(r.body[0].Value) || !exact {
		return nil, r.args().wrong("getMore", r.body[0].Value, "long")
	}
	coll, err := r.args().text("collection")
	if err != nil {
		return nil, err
	}
	n, err := batchSize(r.args(), 0)
	if err != nil {
		return nil, err
	}
	c, err := r.b.cursors.take(id)
	if err != nil {
		return nil, err
	}
	if c.ns.DB != r.db || c.ns.Coll != coll {
		r.b.cursors.giveBack(c, false, c.used)
		return nil, failure(13, "Requested getMore on namespace '%s.%s', but cursor belongs to a different namespace %s", r.db, coll, c.ns)
	}
	if n == 0 {
		n = -1
	}
	docs, done, err := c.batch(ctx, n)
	r.b.cursors.giveBack(c, done || err != nil, r.b.options.Now())
	if err != nil {
		return nil, err
	}
	if done {
		id = 0
	}
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "nextBatch", Value: docs}, {Key: "id", Value: id}, {Key: "ns", Value: c.ns.String()}}}}, nil
}

// batchSize reads batchSize, or cursor.batchSize as aggregate and the lists have it.
func batchSize(a arguments, otherwise int64) (int, error) {
	n, err := a.integer("batchSize", otherwise)
	switch {
	case err != nil:
		return 0, err
	case n < 0:
		return 0, failure(51024, "BSON field 'batchSize' value must be >= 0, actual value '%d'", n)
	}
	return int(min(n, 1<<30)), nil
}

func killCursors(_ context.Context, r *request) (bson.D, error) {
	ids, err := r.args().array("cursors")
	if err != nil {
		return nil, err
	}
	killed, missing := bson.A{}, bson.A{}
	for _, v := range ids {
		id, _ := bsonval.ToInt64(v)
		if r.b.cursors.kill(id) {
			killed = append(killed, id)
		} else {
			missing = append(missing, id)
		}
	}
	return bson.D{{Key: "cursorsKilled", Value: killed}, {Key: "cursorsNotFound", Value: missing},
		{Key: "cursorsAlive", Value: bson.A{}}, {Key: "cursorsUnknown", Value: bson.A{}}}, nil
}
