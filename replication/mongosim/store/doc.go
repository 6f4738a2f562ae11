// Package store holds mongosim's documents: databases, collections, indexes, the records of retryable writes, and the
// history that a power cut or a failover takes back. A document is an immutable version; a write replaces one version by
// another, atomically with every index and with the statement's record, or not at all.
//
// It knows no command and no query operator: the caller reads a version, computes the next one and commits the pair, and
// is told [ErrConflict] if somebody else was faster. It does no I/O: "journalled" is a mark in the history that the
// caller moves, so a test decides what a power cut keeps.
package store

import (
	"errors"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/codec"
)

// Errors of a commit. Nothing has changed when one is returned.
var (
	ErrConflict    = errors.New("the document changed meanwhile")
	ErrEra         = errors.New("this node stepped down or restarted meanwhile")
	ErrFull        = errors.New("no space left")
	ErrNoNamespace = errors.New("ns not found")
	ErrExists      = errors.New("collection already exists")
	ErrTxnTooOld   = errors.New("a newer transaction number was seen in this session")
	ErrSystemIndex = errors.New("cannot drop _id index")
	ErrNoIndex     = errors.New("index not found")
	ErrParallel    = errors.New("cannot index parallel arrays")
)

// DuplicateKey is a unique index that already holds the key of another document.
type DuplicateKey struct {
	NS      Namespace
	Index   string
	Pattern bson.D
	Value   bson.D
}

func (e *DuplicateKey) Error() string {
	parts := make([]string, len(e.Value))
	for i, f := range e.Value {
		parts[i] = f.Key + ": " + shell(f.Value)
	}
	return fmt.Sprintf("E11000 duplicate key error collection: %s index: %s dup key: { %s }", e.NS, e.Index, strings.Join(parts, ", "))
}

// shell prints a value about as mongod does in an E11000.
func shell(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf("%q", v)
	case bson.ObjectID:
		return fmt.Sprintf("ObjectId('%s')", v.Hex())
	case bson.D, bson.A:
		return fmt.Sprintf("%v", v)
	}
	return fmt.Sprint(v)
}

// Namespace is a database and one of its collections.
type Namespace struct{ DB, Coll string }

func (n Namespace) String() string { return n.DB + "." + n.Coll }

// Doc is one version of a document. It never changes after [NewDoc]; body and raw are the same value.
type Doc struct {
	Key  string // canonical bytes of _id: what makes it this document
	Body bson.D
	Raw  bson.Raw

	rid int64 // place in natural order; given at the first commit and kept by later versions
}

// NewDoc makes a version of body, which must carry an _id and must not be changed afterwards.
func NewDoc(body bson.D) (*Doc, error) {
	for _, f := range body {
		if f.Key == "_id" {
			raw, err := codec.Encode(body)
			if err != nil {
				return nil, fmt.Errorf("encode document: %w", err)
			}
			return &Doc{Key: KeyOf(f.Value), Body: body, Raw: raw}, nil
		}
	}
	return nil, errors.New("encode document: it has no _id")
}

// ID is the document's _id.
func (d *Doc) ID() any {
	for _, f := range d.Body {
		if f.Key == "_id" {
			return f.Value
		}
	}
	return nil
}

// KeyOf is the Key of the document whose _id is id: 1, 1.0 and NumberLong(1) name the same document.
func KeyOf(id any) string { return string(bsonval.Canonical(id)) }
