package crdt

import (
	"crypto/sha256"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// Marshal is Document as bytes: what a log entry and a peer's message carry. Equal portable states are equal bytes.
func (d Doc) Marshal() ([]byte, error) {
	b, err := bson.Marshal(d.Document())
	if err != nil {
		return nil, fmt.Errorf("encode document state: %w", err)
	}
	return b, nil
}

// Unmarshal reads what Marshal wrote. Its input may be anything.
func Unmarshal(b []byte) (Doc, error) {
	doc, err := bsonval.Decode(b)
	if err != nil {
		return Doc{}, err
	}
	return FromDocument(doc)
}

// Digest names the state: equal for replicas that hold the same, whatever each of them has already forgotten of what is
// gone everywhere (Compact, Forget), and whatever is its own.
func (d Doc) Digest() ([sha256.Size]byte, error) {
	body, state := d.Compact(maxStamp).parts(false)
	b, err := bson.Marshal(append(body, bson.E{Key: Field, Value: state}))
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode document state: %w", err)
	}
	return sha256.Sum256(b), nil
}
