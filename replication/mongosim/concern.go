package mongosim

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
)

var errWaitTime = errors.New("wtimeout passed")

// concern is a write concern as it is modelled: w:1 is in memory, j:true is journalled, w:"majority" is journalled and on
// a majority. The set has three members, so w:2 and w:3 are a majority too.
type concern struct {
	guarantee  store.Guarantee
	timeout    time.Duration
	impossible error // can never be met: told after the effect, as the server does
}

func (r *request) writeConcern() (c concern, err error) {
	d, err := r.args().document("writeConcern")
	if err != nil {
		return c, err
	}
	a := arguments{of: "writeConcern", in: d}
	if err := a.known([]string{"w", "j", "wtimeout", "fsync", "provenance"}); err != nil {
		return c, err
	}
	j, err := a.truth("j", false)
	if err != nil {
		return c, err
	}
	if j {
		c.guarantee = store.Journalled
	}
	ms, err := a.integer("wtimeout", 0)
	if err != nil {
		return c, err
	}
	c.timeout = time.Duration(ms) * time.Millisecond
	return c, c.members(r, fields(d))
}

func (c *concern) members(r *request, d fields) error {
	w, has := d.lookup("w")
	switch w := w.(type) {
	case string:
		if w != "majority" {
			c.impossible = failure(79, "No write concern mode named '%s' found in replica set configuration", w)
			return nil
		}
		if r.b.options.ReplicaSet == "" {
			c.guarantee = max(c.guarantee, store.Journalled)
			return nil
		}
		c.guarantee = store.Majority
	default:
		n, exact := bsonval.ToInt64(w)
		switch {
		case !has || w == nil:
			if r.b.options.ReplicaSet != "" {
				c.guarantee = store.Majority // the implicit default since 5.0
			}
		case !bsonval.IsNumber(w) || !exact || n < 0 || n > 50:
			return failure(codeFailedToParse, "w has to be a number or a string")
		case n > 1 && r.b.options.ReplicaSet == "":
			return failure(codeBadValue, "cannot use 'w' > 1 when a host is not replicated")
		case n > 3:
			c.impossible = failure(100, "Not enough data-bearing nodes")
		case n > 1:
			c.guarantee = store.Majority
		}
	}
	return nil
}

func (c concern) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.timeout, errWaitTime)
}

// readConcern makes a read wait for what it asks: majority and linearizable until all that it may see is on a majority,
// so what it saw can't be rolled back.
func (r *request) readConcern(ctx context.Context) error {
	d, err := r.args().document("readConcern")
	if err != nil || d == nil {
		return err
	}
	if after, ok := fields(d).lookup("afterClusterTime"); ok {
		if t, is := after.(bson.Timestamp); !is || optime(r.b.store.Marks().Applied).Before(t) {
			return failure(codeInvalidOptions, "readConcern afterClusterTime value must not be greater than the current clusterTime")
		}
	}
	switch level, _ := fields(d).lookup("level"); level {
	case nil, "local", "available":
		return nil
	case "majority", "linearizable":
		return r.b.store.Wait(ctx, r.era, r.b.store.Marks().Applied, store.Majority)
	default:
		return refused("readConcern " + bsonvalText(level))
	}
}

func bsonvalText(v any) string {
	s, _ := v.(string)
	return s
}
