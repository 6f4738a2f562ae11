package back

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"popfleet/replication/wire"
)

const (
	maxCursors = 100_000
	// cursorLife is what servers give an unused cursor.
	cursorLife = 10 * time.Minute
)

// cursors knows on which connection each open cursor lives.
type cursors map[int64]tracked

type tracked struct {
	on   *conn
	used time.Time
}

func (cs cursors) forgetAll(on *conn) {
	for id, t := range cs {
		if t.on == on {
			delete(cs, id)
		}
	}
}

func (cs cursors) forgetOld() {
	for id, t := range cs {
		if time.Since(t.used) > cursorLife {
			delete(cs, id)
		}
	}
}

// note follows a cursor's life by what was asked and answered on a connection.
func (p *Pool) note(on *conn, command, reply bson.Raw) {
	asked := ids(command)
	opened, has := reply.Lookup("cursor", "id").AsInt64OK()
	if len(asked) == 0 && (!has || opened == 0) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range asked {
		delete(p.cursors, id) // read to its end, killed or unknown there, unless the reply names it
	}
	if !has || opened == 0 {
		return
	}
	if len(p.cursors) >= maxCursors {
		p.cursors.forgetOld()
	}
	if len(p.cursors) >= maxCursors {
		p.log.Warn("cursor not tracked", "reason", "too many open", "limit", maxCursors)
		return
	}
	p.cursors[opened] = tracked{on, time.Now()}
}

// ids are the cursors that a getMore or killCursors is about.
func ids(command bson.Raw) (all []int64) {
	element, _, ok := bsoncore.ReadElement(command[4:])
	if !ok {
		return nil
	}
	switch string(element.KeyBytes()) {
	case "getMore":
		if id, is := element.Value().AsInt64OK(); is {
			all = append(all, id)
		}
	case "killCursors":
		list, _ := command.Lookup("cursors").ArrayOK()
		values, _ := list.Values()
		for _, v := range values {
			if id, is := v.AsInt64OK(); is {
				all = append(all, id)
			}
		}
	}
	return all
}

// doPinned sends what is about a cursor to where the cursor is, anything else anywhere.
func (p *Pool) doPinned(ctx context.Context, command Command) (*Reply, error) {
	asked := ids(command.Body)
	if len(asked) == 0 {
		reply, _, err := p.do(ctx, command, nil)
		return reply, err
	}
	if _, err := command.Body.LookupErr("getMore"); err == nil {
		return p.doOn(ctx, command, asked[0])
	}
	return p.killEach(ctx, command, asked)
}

// doOn answers for a cursor that is gone what the backend would.
func (p *Pool) doOn(ctx context.Context, command Command, id int64) (*Reply, error) {
	on, err := p.acquireFor(ctx, id)
	if err != nil {
		return nil, err
	}
	if on == nil {
		e := &wire.CommandError{Code: wire.CodeCursorNotFound, Name: "CursorNotFound", Message: "cursor id not found: its connection to the backend is gone"}
		return &Reply{Body: e.Document()}, nil
	}
	reply, _, err := p.do(ctx, command, on)
	return reply, err
}

// acquireFor gives the connection of a cursor, nil when there is none.
func (p *Pool) acquireFor(ctx context.Context, id int64) (*conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	t, known := p.cursors[id]
	if !known || t.on.dead {
		p.mu.Unlock()
		return nil, nil
	}
	for i, c := range p.idle {
		if c == t.on {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			p.mu.Unlock()
			return c, nil
		}
	}
	turn := make(chan *conn, 1)
	t.on.waiting = append(t.on.waiting, turn)
	p.mu.Unlock()
	return p.wait(ctx, p.until(ctx), turn, &t.on.waiting)
}

// killEach kills cursors one by one, since they may live apart, and puts the answers together.
func (p *Pool) killEach(ctx context.Context, command Command, asked []int64) (*Reply, error) {
	lists := map[string]bson.A{"cursorsKilled": {}, "cursorsNotFound": {}, "cursorsAlive": {}, "cursorsUnknown": {}}
	for _, id := range asked {
		body, err := bson.Marshal(bson.D{{Key: "killCursors", Value: command.Body.Lookup("killCursors")}, {Key: "cursors", Value: bson.A{id}},
			{Key: "$db", Value: command.Body.Lookup("$db")}})
		if err != nil {
			return nil, err
		}
		reply, err := p.doOn(ctx, Command{Body: body}, id)
		if err != nil {
			return nil, err
		}
		where := "cursorsKilled"
		if reply.Err() != nil || !isEmpty(reply.Body.Lookup("cursorsNotFound")) {
			where = "cursorsNotFound"
		}
		lists[where] = append(lists[where], id)
		reply.Release()
	}
	d := bson.D{}
	for _, name := range []string{"cursorsKilled", "cursorsNotFound", "cursorsAlive", "cursorsUnknown"} {
		d = append(d, bson.E{Key: name, Value: lists[name]})
	}
	body, err := bson.Marshal(append(d, bson.E{Key: "ok", Value: 1.0}))
	return &Reply{Body: body}, err
}

func isEmpty(list bson.RawValue) bool {
	array, is := list.ArrayOK()
	if !is {
		return true
	}
	values, err := array.Values()
	return err != nil || len(values) == 0
}
