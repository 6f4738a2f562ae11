package expression

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func documents(name string) (operator, bool) {
	switch name {
	case "$mergeObjects":
		return operator{0, -1, mergeObjects}, true
	case "$objectToArray":
		return operator{1, 1, objectToArray}, true
	case "$arrayToObject":
		return operator{1, 1, arrayToObject}, true
	case "$type":
		return operator{1, 1, func(_ string, args []any) (any, error) { return bsonval.TypeName(args[0]), nil }}, true
	case "$isNumber":
		return operator{1, 1, func(_ string, args []any) (any, error) { return bsonval.IsNumber(args[0]), nil }}, true
	}
	return operator{}, false
}

func put(d bson.D, key string, v any) bson.D {
	if i := bsonval.Find(d, key); i >= 0 {
		d[i].Value = v
		return d
	}
	return append(d, bson.E{Key: key, Value: v})
}

func mergeObjects(name string, args []any) (any, error) {
	out := bson.D{}
	for _, v := range operandsOrNone(args) {
		if nullish(v) {
			continue
		}
		d, ok := v.(bson.D)
		if !ok {
			return nil, fail(40400, "%s requires object inputs, but input is of type %s", name, bsonval.TypeName(v))
		}
		for _, f := range d {
			out = put(out, f.Key, f.Value)
		}
	}
	return out, nil
}

func operandsOrNone(args []any) []any {
	if len(args) == 0 {
		return nil
	}
	return operands(args)
}

func objectToArray(name string, args []any) (any, error) {
	if nullish(args[0]) {
		return nil, nil
	}
	d, ok := args[0].(bson.D)
	if !ok {
		return nil, fail(40390, "%s requires an object, found: %s", name, bsonval.TypeName(args[0]))
	}
	out := make(bson.A, len(d))
	for i, f := range d {
		out[i] = bson.D{{Key: "k", Value: f.Key}, {Key: "v", Value: f.Value}}
	}
	return out, nil
}

func arrayToObject(name string, args []any) (any, error) {
	if nullish(args[0]) {
		return nil, nil
	}
	a, ok := args[0].(bson.A)
	if !ok {
		return nil, fail(40386, "%s requires an array input, found: %s", name, bsonval.TypeName(args[0]))
	}
	out := bson.D{}
	for _, e := range a {
		key, v, ok := pair(e)
		if !ok {
			return nil, fail(40398, "%s requires an array of key-value pairs: [key, value] or {k: …, v: …} with a string for a key", name)
		}
		out = put(out, key, v)
	}
	return out, nil
}

func pair(v any) (key string, value any, ok bool) {
	switch x := v.(type) {
	case bson.A:
		if len(x) == 2 {
			key, ok = x[0].(string)
			return key, x[1], ok
		}
	case bson.D:
		value = bsonval.Field(x, "v")
		key, ok = bsonval.Field(x, "k").(string)
		return key, value, ok && len(x) == 2 && !isMissing(value)
	}
	return "", nil, false
}
