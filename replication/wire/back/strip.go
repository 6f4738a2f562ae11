package back

import (
	"encoding/binary"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// strip gives body without those top-level fields: body itself when it has none of them, else a copy in scratch's
// memory. body was walked.
func strip(scratch []byte, body bson.Raw, fields []string) (out bson.Raw, memory []byte) {
	if !holdsAny(body, fields) {
		return body, scratch
	}
	scratch = append(scratch[:0], 0, 0, 0, 0)
	rest := []byte(body[4 : len(body)-1])
	for len(rest) > 0 {
		element, after, ok := bsoncore.ReadElement(rest)
		if !ok {
			return body, scratch
		}
		if !named(element, fields) {
			scratch = append(scratch, element...)
		}
		rest = after
	}
	scratch = append(scratch, 0)
	binary.LittleEndian.PutUint32(scratch, uint32(len(scratch)))
	return bson.Raw(scratch), scratch
}

func holdsAny(body bson.Raw, fields []string) bool {
	rest := []byte(body[4 : len(body)-1])
	for len(fields) > 0 && len(rest) > 0 {
		element, after, ok := bsoncore.ReadElement(rest)
		if !ok {
			return false
		}
		if named(element, fields) {
			return true
		}
		rest = after
	}
	return false
}

func named(element bsoncore.Element, fields []string) bool {
	key := element.KeyBytes()
	return slices.ContainsFunc(fields, func(f string) bool { return f == string(key) })
}
