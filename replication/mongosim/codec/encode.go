package codec

import (
	"fmt"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Encode is the document's bytes. Besides the value model it takes bson.Raw for a document that is encoded already, and
// hands what it doesn't know to the driver's codec.
func Encode(d bson.D) (bson.Raw, error) {
	b, err := Append(make([]byte, 0, 256), d)
	return bson.Raw(b), err
}

// Append appends the document's bytes to dst.
func Append(dst []byte, d bson.D) ([]byte, error) {
	at, dst := bsoncore.AppendDocumentStart(dst)
	for i := range d {
		var err error
		if dst, err = element(dst, d[i].Key, d[i].Value); err != nil {
			return dst, err
		}
	}
	return bsoncore.AppendDocumentEnd(dst, at)
}

func appendArray(dst []byte, a bson.A) ([]byte, error) {
	at, dst := bsoncore.AppendDocumentStart(dst)
	for i := range a {
		var err error
		if dst, err = element(dst, strconv.Itoa(i), a[i]); err != nil {
			return dst, err
		}
	}
	return bsoncore.AppendDocumentEnd(dst, at)
}

func element(dst []byte, key string, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return bsoncore.AppendStringElement(dst, key, v), nil
	case int32:
		return bsoncore.AppendInt32Element(dst, key, v), nil
	case int64:
		return bsoncore.AppendInt64Element(dst, key, v), nil
	case float64:
		return bsoncore.AppendDoubleElement(dst, key, v), nil
	case bool:
		return bsoncore.AppendBooleanElement(dst, key, v), nil
	case nil:
		return bsoncore.AppendNullElement(dst, key), nil
	case bson.D:
		return Append(bsoncore.AppendHeader(dst, bsoncore.TypeEmbeddedDocument, key), v)
	case bson.A:
		return appendArray(bsoncore.AppendHeader(dst, bsoncore.TypeArray, key), v)
	case bson.Raw:
		return append(bsoncore.AppendHeader(dst, bsoncore.TypeEmbeddedDocument, key), v...), nil
	case bson.ObjectID:
		return bsoncore.AppendObjectIDElement(dst, key, v), nil
	case bson.DateTime:
		return bsoncore.AppendDateTimeElement(dst, key, int64(v)), nil
	case bson.Timestamp:
		return bsoncore.AppendTimestampElement(dst, key, v.T, v.I), nil
	}
	t, data, err := bson.MarshalValue(v)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", key, err)
	}
	return append(bsoncore.AppendHeader(dst, bsoncore.Type(t), key), data...), nil
}
