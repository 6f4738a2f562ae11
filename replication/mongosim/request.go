package mongosim

import (
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/mongosim/store"
)

// request is one command on its way.
type request struct {
	b       *Backend
	db      string
	name    string
	coll    string
	body    bson.D
	n       int64
	era     int64 // what began in one era can't be committed in another
	arrived time.Time

	session string // canonical lsid; empty without one
	txn     int64
	retried bool  // it carries a txnNumber
	seq     int64 // place in history of its last write; 0 for none
}

func (r *request) event() fault.Event {
	return fault.Event{N: r.n, DB: r.db, Command: r.name, Coll: r.coll, Body: r.body}
}

func (r *request) ns() store.Namespace { return store.Namespace{DB: r.db, Coll: r.coll} }

func (r *request) lookup(name string) (any, bool) { return fields(r.body).lookup(name) }

// deadline bounds ctx by maxTimeMS, counted from the arrival: what lands later than that finds its time over.
func (r *request) deadline(ctx context.Context) (context.Context, context.CancelFunc, error) {
	ms, err := r.args().integer("maxTimeMS", 0)
	switch {
	case err != nil:
		return nil, nil, err
	case ms < 0 || ms > 1<<31-1:
		return nil, nil, failure(codeBadValue, "%d value for maxTimeMS is out of range", ms)
	case ms == 0:
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithDeadlineCause(ctx, r.arrived.Add(time.Duration(ms)*time.Millisecond), errMaxTime)
	return ctx, cancel, nil
}

// fields reads typed values out of a command or a part of it; of names how errors call it.
type arguments struct {
	of string
	in bson.D
}

type fields bson.D

func (f fields) lookup(name string) (any, bool) {
	for i := range f {
		if f[i].Key == name {
			return f[i].Value, true
		}
	}
	return nil, false
}

func (r *request) args() arguments { return arguments{of: r.name, in: r.body} }

func (a arguments) wrong(name string, v any, want string) error {
	return failure(codeTypeMismatch, "BSON field '%s.%s' is the wrong type '%s', expected type '%s'", a.of, name, bsonval.TypeName(v), want)
}

func (a arguments) document(name string) (bson.D, error) {
	v, ok := fields(a.in).lookup(name)
	if !ok || v == nil {
		return nil, nil
	}
	d, is := v.(bson.D)
	if !is {
		return nil, a.wrong(name, v, "object")
	}
	return d, nil
}

func (a arguments) array(name string) (bson.A, error) {
	v, ok := fields(a.in).lookup(name)
	if !ok || v == nil {
		return nil, nil
	}
	list, is := v.(bson.A)
	if !is {
		return nil, a.wrong(name, v, "array")
	}
	return list, nil
}

// documents is an array of documents; it must be there and not be empty.
func (a arguments) documents(name string) ([]bson.D, error) {
	list, err := a.array(name)
	if err != nil {
		return nil, err
	}
	if list == nil {
		return nil, failure(codeMissingField, "BSON field '%s.%s' is missing but a required field", a.of, name)
	}
	if len(list) == 0 || len(list) > 100_000 {
		return nil, failure(codeInvalidLength, "Write batch sizes must be between 1 and 100000. Got %d operations.", len(list))
	}
	return asDocuments(a, name, list)
}

func asDocuments(a arguments, name string, list bson.A) ([]bson.D, error) {
	docs := make([]bson.D, len(list))
	for i, v := range list {
		d, is := v.(bson.D)
		if !is {
			return nil, a.wrong(name, v, "object")
		}
		docs[i] = d
	}
	return docs, nil
}

func (a arguments) integer(name string, otherwise int64) (int64, error) {
	v, ok := fields(a.in).lookup(name)
	if !ok || v == nil {
		return otherwise, nil
	}
	n, exact := bsonval.ToInt64(v)
	if !bsonval.IsNumber(v) || !exact {
		return 0, a.wrong(name, v, "long")
	}
	return n, nil
}

// truth is a boolean, or a number as older drivers send one.
func (a arguments) truth(name string, otherwise bool) (bool, error) {
	v, ok := fields(a.in).lookup(name)
	switch v := v.(type) {
	case bool:
		return v, nil
	case nil:
		return otherwise, nil
	default:
		if ok && bsonval.IsNumber(v) {
			return bsonval.Compare(v, int32(0)) != 0, nil
		}
		return false, a.wrong(name, v, "bool")
	}
}

func (a arguments) text(name string) (string, error) {
	v, ok := fields(a.in).lookup(name)
	if !ok {
		return "", failure(codeMissingField, "BSON field '%s.%s' is missing but a required field", a.of, name)
	}
	s, is := v.(string)
	if !is {
		return "", a.wrong(name, v, "string")
	}
	return s, nil
}

// known refuses a field that is in neither list.
func (a arguments) known(lists ...[]string) error {
next:
	for _, f := range a.in {
		for _, list := range lists {
			if slices.Contains(list, f.Key) {
				continue next
			}
		}
		return failure(codeUnknownField, "BSON field '%s.%s' is an unknown field.", a.of, f.Key)
	}
	return nil
}

// sortOf reads a sort document: paths with 1 or -1.
func sortOf(d bson.D) ([]store.KeyPart, error) {
	var parts []store.KeyPart
	for _, f := range d {
		n, exact := bsonval.ToInt64(f.Value)
		if !bsonval.IsNumber(f.Value) || !exact || n != 1 && n != -1 {
			return nil, failure(codeBadValue, "Illegal key in $sort specification: %s: %v", f.Key, f.Value)
		}
		parts = append(parts, store.Part(f.Key, int(n)))
	}
	return parts, nil
}
