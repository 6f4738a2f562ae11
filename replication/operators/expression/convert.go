package expression

import (
	"math"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func conversions(name string) (operator, bool) {
	var to func(any) (any, bool)
	switch name {
	case "$toString":
		to = func(v any) (any, bool) { s, err := textOf(v); return s, err == nil }
	case "$toInt":
		to = toInt
	case "$toLong":
		to = toLong
	case "$toDouble":
		to = toDouble
	case "$toDecimal":
		to = toDecimal
	case "$toBool":
		to = func(v any) (any, bool) { return Truthy(v), true }
	case "$toDate":
		to = toDate
	case "$toObjectId":
		to = toObjectID
	default:
		return operator{}, false
	}
	return operator{1, 1, func(name string, args []any) (any, error) {
		if nullish(args[0]) {
			return nil, nil
		}
		v, ok := to(args[0])
		if !ok {
			return nil, fail(bsonval.ConversionFailure, "Failed to convert %s with no onError value: %v by %s", bsonval.TypeName(args[0]), args[0], name)
		}
		return v, nil
	}}, true
}

func textOf(v any) (string, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case bson.Symbol:
		return string(x), nil
	case int32:
		return strconv.Itoa(int(x)), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case float64:
		return floatText(x), nil
	case bson.Decimal128:
		return x.String(), nil
	case bool:
		return strconv.FormatBool(x), nil
	case bson.ObjectID:
		return x.Hex(), nil
	case bson.DateTime:
		return x.Time().UTC().Format("2006-01-02T15:04:05.000Z"), nil
	}
	return "", fail(bsonval.ConversionFailure, "Unsupported conversion from %s to string", bsonval.TypeName(v))
}

func floatText(f float64) string {
	switch {
	case f != f:
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case math.Abs(f) < 1e15 && f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func wholeOf(v any) (int64, bool) {
	switch x := v.(type) {
	case bool:
		if x {
			return 1, true
		}
		return 0, true
	case string:
		i, err := strconv.ParseInt(x, 10, 64)
		return i, err == nil && !strings.HasPrefix(x, "+")
	}
	return bsonval.ToInt64(v)
}

func toInt(v any) (any, bool) {
	i, ok := wholeOf(v)
	return int32(i), ok && i == int64(int32(i))
}

func toLong(v any) (any, bool) {
	if d, ok := v.(bson.DateTime); ok {
		return int64(d), true
	}
	return wholeOf(v)
}

func toDouble(v any) (any, bool) {
	switch x := v.(type) {
	case bool:
		i, _ := wholeOf(x)
		return float64(i), true
	case string:
		f, err := strconv.ParseFloat(x, 64)
		return f, err == nil
	case bson.DateTime:
		return float64(x), true
	}
	if !bsonval.IsNumber(v) {
		return nil, false
	}
	f := bsonval.ToFloat(v)
	_, was := v.(float64)
	return f, was || !math.IsInf(f, 0)
}

func toDecimal(v any) (any, bool) {
	switch x := v.(type) {
	case bool:
		i, _ := wholeOf(x)
		return bsonval.ToDecimal(i), true
	case string:
		d, err := bson.ParseDecimal128(x)
		return d, err == nil
	case bson.DateTime:
		return bsonval.ToDecimal(int64(x)), true
	}
	if !bsonval.IsNumber(v) {
		return nil, false
	}
	return bsonval.ToDecimal(v), true
}

func toDate(v any) (any, bool) {
	switch x := v.(type) {
	case bson.DateTime:
		return x, true
	case bson.ObjectID:
		return bson.NewDateTimeFromTime(x.Timestamp()), true
	case bson.Timestamp:
		return bson.DateTime(int64(x.T) * 1000), true
	case string:
		t, err := time.Parse(time.RFC3339Nano, x)
		return bson.NewDateTimeFromTime(t), err == nil
	case int32: // the server takes no int for a date
		return nil, false
	}
	ms, ok := bsonval.ToInt64(v)
	return bson.DateTime(ms), ok
}

func toObjectID(v any) (any, bool) {
	switch x := v.(type) {
	case bson.ObjectID:
		return x, true
	case string:
		id, err := bson.ObjectIDFromHex(x)
		return id, err == nil
	}
	return nil, false
}
