package expression

import (
	"strings"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func texts(name string) (operator, bool) {
	switch name {
	case "$concat":
		return operator{0, -1, concat}, true
	case "$toLower":
		return operator{1, 1, changeCase(lowerASCII)}, true
	case "$toUpper":
		return operator{1, 1, changeCase(upperASCII)}, true
	case "$strLenCP":
		return operator{1, 1, length(utf8.RuneCountInString)}, true
	case "$strLenBytes":
		return operator{1, 1, length(func(s string) int { return len(s) })}, true
	case "$substrCP":
		return operator{3, 3, substring}, true
	case "$split":
		return operator{2, 2, split}, true
	}
	return operator{}, false
}

func concat(name string, args []any) (any, error) {
	var out strings.Builder
	for _, v := range args {
		if nullish(v) {
			return nil, nil
		}
		s, ok := v.(string)
		if !ok {
			return nil, fail(16702, "%s only supports strings, not %s", name, bsonval.TypeName(v))
		}
		if out.Len()+len(s) > bsonval.MaxDocumentSize {
			return nil, refuseValue("%s: the result is larger than a document", name)
		}
		out.WriteString(s)
	}
	return out.String(), nil
}

// The server changes the case of ASCII letters only.
func lowerASCII(s string) string { return mapASCII(s, 'A', 'Z', 'a'-'A') }
func upperASCII(s string) string { return mapASCII(s, 'a', 'z', -('a' - 'A')) }

func mapASCII(s string, from, to, shift rune) string {
	return strings.Map(func(r rune) rune {
		if r >= from && r <= to {
			return r + shift
		}
		return r
	}, s)
}

func changeCase(change func(string) string) func(string, []any) (any, error) {
	return func(name string, args []any) (any, error) {
		if nullish(args[0]) {
			return "", nil
		}
		s, err := textOf(args[0])
		if err != nil {
			return nil, fail(16007, "%s can't convert from %s to String", name, bsonval.TypeName(args[0]))
		}
		return change(s), nil
	}
}

func length(count func(string) int) func(string, []any) (any, error) {
	return func(name string, args []any) (any, error) {
		s, ok := args[0].(string)
		if !ok {
			return nil, fail(34471, "%s requires a string argument, found: %s", name, bsonval.TypeName(args[0]))
		}
		return int32(count(s)), nil
	}
}

func substring(name string, args []any) (any, error) {
	s := ""
	if !nullish(args[0]) {
		text, err := textOf(args[0])
		if err != nil {
			return nil, fail(16007, "%s can't convert from %s to String", name, bsonval.TypeName(args[0]))
		}
		s = text
	}
	start, ok1 := bsonval.ToExactInt64(args[1])
	n, ok2 := bsonval.ToExactInt64(args[2])
	if !ok1 || !ok2 || start < 0 || n < 0 {
		return nil, fail(34455, "%s: starting index and length must be non-negative whole numbers", name)
	}
	runes := []rune(s)
	from := min(start, int64(len(runes)))
	return string(runes[from : from+min(n, int64(len(runes))-from)]), nil
}

func split(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	s, ok1 := args[0].(string)
	by, ok2 := args[1].(string)
	if !ok1 || !ok2 || by == "" {
		return nil, fail(40085, "%s requires two strings, the second not empty", name)
	}
	out := bson.A{}
	for _, part := range strings.Split(s, by) {
		out = append(out, part)
	}
	return out, nil
}
