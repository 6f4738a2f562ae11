package bsonval

import (
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// MaxPadding bounds how many nulls a Set beyond an array's end may add (the server's limit).
const MaxPadding = 1_500_000

// SplitPath cuts a dotted path.
func SplitPath(dotted string) []string { return strings.Split(dotted, ".") }

// Index is the array position that a path component names: decimal digits without leading zeros.
func Index(component string) (int, bool) {
	if len(component) == 0 || len(component) > 9 || component[0] == '0' && len(component) > 1 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(component) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// Find is the position of key among d's fields, -1 if it is not there.
func Find(d bson.D, key string) int {
	for i := range d {
		if d[i].Key == key {
			return i
		}
	}
	return -1
}

// Field is the value of a field, Missing{} if it is not there.
func Field(d bson.D, key string) any {
	if i := Find(d, key); i >= 0 {
		return d[i].Value
	}
	return Missing{}
}

// Get is the value at path: through documents by name, through arrays by index. Nothing there is Missing{}.
func Get(d bson.D, path []string) any {
	var v any = d
	for _, c := range path {
		v = child(v, c)
	}
	return v
}

func child(v any, component string) any {
	switch x := v.(type) {
	case bson.D:
		return Field(x, component)
	case bson.A:
		if i, ok := Index(component); ok && i < len(x) {
			return x[i]
		}
	}
	return Missing{}
}

// Set is d with value at path. Missing documents on the way are made; an index beyond an array's end pads with null.
// A path through a scalar, or by name through an array, is error 28.
func Set(d bson.D, path []string, value any) (bson.D, error) {
	out, err := set(d, path, value)
	if err != nil {
		return nil, err
	}
	return out.(bson.D), nil
}

func set(v any, path []string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	switch x := v.(type) {
	case Missing:
		below, err := set(Missing{}, path[1:], value)
		return bson.D{{Key: path[0], Value: below}}, err
	case bson.D:
		return setField(x, path, value)
	case bson.A:
		return setElement(x, path, value)
	}
	return nil, NotViable(path[0], v)
}

// NotViable is the error for a path component below a value that has nothing below it.
func NotViable(component string, v any) error {
	return Errorf(PathNotViable, "Cannot create field '%s' in element of type %s", component, TypeName(v))
}

func setField(d bson.D, path []string, value any) (any, error) {
	i := Find(d, path[0])
	below := any(Missing{})
	if i >= 0 {
		below = d[i].Value
	}
	below, err := set(below, path[1:], value)
	if err != nil {
		return nil, err
	}
	if i < 0 {
		out := make(bson.D, len(d), len(d)+1)
		copy(out, d)
		return append(out, bson.E{Key: path[0], Value: below}), nil
	}
	out := slices.Clone(d)
	out[i].Value = below
	return out, nil
}

func setElement(a bson.A, path []string, value any) (any, error) {
	i, ok := Index(path[0])
	if !ok {
		return nil, NotViable(path[0], a)
	}
	if i-len(a) > MaxPadding {
		return nil, Errorf(BadValue, "can't backfill more than %d elements", MaxPadding)
	}
	below := any(Missing{})
	if i < len(a) {
		below = a[i]
	}
	below, err := set(below, path[1:], value)
	if err != nil {
		return nil, err
	}
	out := make(bson.A, max(len(a), i+1)) // beyond the end: null
	copy(out, a)
	out[i] = below
	return out, nil
}

// Unset is d without what is at path: a field goes, an element becomes null. A path that leads nowhere changes nothing.
func Unset(d bson.D, path []string) bson.D {
	out, _ := unset(d, path).(bson.D)
	return out
}

func unset(v any, path []string) any {
	switch x := v.(type) {
	case bson.D:
		return unsetField(x, path)
	case bson.A:
		i, ok := Index(path[0])
		if !ok || i >= len(x) {
			return x
		}
		out := slices.Clone(x)
		out[i] = nil
		if len(path) > 1 {
			out[i] = unset(x[i], path[1:])
		}
		return out
	}
	return v
}

func unsetField(d bson.D, path []string) any {
	i := Find(d, path[0])
	if i < 0 {
		return d
	}
	if len(path) == 1 {
		return slices.Delete(slices.Clone(d), i, i+1)
	}
	out := slices.Clone(d)
	out[i].Value = unset(d[i].Value, path[1:])
	return out
}

// Clone copies a value and all documents and arrays in it.
func Clone(v any) any {
	switch x := v.(type) {
	case bson.D:
		out := make(bson.D, len(x))
		for i := range x {
			out[i] = bson.E{Key: x[i].Key, Value: Clone(x[i].Value)}
		}
		return out
	case bson.A:
		out := make(bson.A, len(x))
		for i := range x {
			out[i] = Clone(x[i])
		}
		return out
	}
	return v
}

// ArrayDocument is an array as the document it is stored as: "0", "1", … for keys.
func ArrayDocument(a bson.A) bson.D {
	out := make(bson.D, len(a))
	for i := range a {
		out[i] = bson.E{Key: strconv.Itoa(i), Value: a[i]}
	}
	return out
}
