package inventory

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// decoder fills Go values from the tree of a YAML file. Unlike a general decoder it goes on after a mistake, remembers
// where each field stands, and takes a value only in the one form that is meant: no anchors, no tags, no "yes" for true.
type decoder struct{ *report }

var (
	durationType = reflect.TypeFor[time.Duration]()
	addrPortType = reflect.TypeFor[netip.AddrPort]()
)

// value fills into from n. A field without value (null) is left as it is. Later checks point to a scalar itself, and
// to the key of anything larger.
func (d *decoder) value(field string, n ast.Node, into reflect.Value) {
	if n.Type() == ast.NullType {
		return
	}
	if _, scalar := n.(ast.ScalarNode); scalar {
		d.at[field] = place(n)
	}
	switch {
	case into.Type() == durationType:
		d.duration(field, n, into)
	case into.Type() == addrPortType:
		d.addrPort(field, n, into)
	default:
		d.kind(field, n, into)
	}
}

func (d *decoder) kind(field string, n ast.Node, into reflect.Value) {
	switch into.Kind() {
	case reflect.Struct:
		d.structure(field, n, into)
	case reflect.Map:
		d.table(field, n, into)
	case reflect.Slice:
		d.list(field, n, into)
	case reflect.String:
		if s, ok := d.text(field, n, "text"); ok {
			into.SetString(s)
		}
	case reflect.Int:
		d.integer(field, n, into)
	case reflect.Float64:
		d.number(field, n, into)
	default:
		panic("inventory: a fleet field is of kind " + into.Kind().String()) // a new kind of field needs a case here
	}
}

func (d *decoder) wrong(field string, n ast.Node, want string) {
	d.addAt(place(n), field, "is "+kindOf(n), "want "+want)
}

func (d *decoder) structure(field string, n ast.Node, into reflect.Value) {
	fields := yamlFields(into.Type())
	said := map[string]bool{}
	ok := d.entries(field, n, func(key, child string, value ast.Node) {
		f, known := fields.find(key)
		if !known {
			d.add(child, "unknown key", cmp.Or(nearest(key, fields.names()), "want one of "+strings.Join(fields.names(), ", ")))
			return
		}
		said[key] = value.Type() != ast.NullType
		d.value(child, value, into.Field(f.index))
	})
	for _, f := range fields {
		if ok && f.required && !said[f.name] {
			d.add(join(field, f.name), "is missing", "")
		}
	}
}

func (d *decoder) table(field string, n ast.Node, into reflect.Value) {
	out := reflect.MakeMap(into.Type())
	d.entries(field, n, func(key, child string, value ast.Node) {
		v := reflect.New(into.Type().Elem()).Elem()
		d.value(child, value, v)
		out.SetMapIndex(reflect.ValueOf(key), v)
	})
	if out.Len() > 0 {
		into.Set(out)
	}
}

// entries calls each for the entries of the mapping n, once per key; false when n is not a mapping.
func (d *decoder) entries(field string, n ast.Node, each func(key, child string, value ast.Node)) bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.wrong(field, n, "a mapping")
		return false
	}
	seen := map[string]position{}
	for it := m.MapRange(); it.Next(); {
		at := tokenPlace(it.Key().GetToken())
		key, ok := scalarText(it.Key())
		if !ok {
			d.addAt(at, field, "a key is "+kindOf(it.Key()), "want plain text")
			continue
		}
		child := join(field, key)
		if first, twice := seen[key]; twice {
			d.addAt(at, child, fmt.Sprintf("is said twice, first in line %d", first.line), "keep one")
			continue
		}
		seen[key], d.at[child] = at, at
		each(key, child, it.Value())
	}
	return true
}

func (d *decoder) list(field string, n ast.Node, into reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(field, n, "a list")
		return
	}
	out := reflect.MakeSlice(into.Type(), len(seq.Values), len(seq.Values))
	for i, v := range seq.Values {
		child := fmt.Sprintf("%s[%d]", field, i)
		d.at[child] = place(v)
		if v.Type() == ast.NullType {
			d.add(child, "is empty", "remove the dash or say something")
		}
		d.value(child, v, out.Index(i))
	}
	if out.Len() > 0 {
		into.Set(out)
	}
}

// text takes a string; a bare number or truth value is refused, since it is not always written back as it was read.
func (d *decoder) text(field string, n ast.Node, want string) (string, bool) {
	s, ok := scalarText(n)
	if !ok {
		if _, scalar := n.(ast.ScalarNode); scalar {
			want += ", in quotes"
		}
		d.wrong(field, n, want)
	}
	return s, ok
}

func (d *decoder) integer(field string, n ast.Node, into reflect.Value) {
	if i, ok := n.(*ast.IntegerNode); ok {
		switch v := i.Value.(type) {
		case int64:
			into.SetInt(v)
			return
		case uint64:
			if v <= math.MaxInt64 {
				into.SetInt(int64(v))
				return
			}
		}
	}
	d.wrong(field, n, "a whole number")
}

func (d *decoder) number(field string, n ast.Node, into reflect.Value) {
	switch v := n.(type) {
	case *ast.FloatNode:
		into.SetFloat(v.Value)
	case *ast.IntegerNode:
		switch i := v.Value.(type) {
		case int64:
			into.SetFloat(float64(i))
		case uint64:
			into.SetFloat(float64(i))
		}
	default:
		d.wrong(field, n, "a number")
	}
}

func (d *decoder) duration(field string, n ast.Node, into reflect.Value) {
	const want = "a duration such as 30s or 5m"
	s, ok := d.text(field, n, want)
	if !ok {
		return
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		d.addAt(place(n), field, fmt.Sprintf("%q is not a duration", s), "want "+want)
		return
	}
	into.SetInt(int64(v))
}

func (d *decoder) addrPort(field string, n ast.Node, into reflect.Value) {
	const want = "an address with port such as 203.0.113.10:8440 or \"[2001:db8::1]:8440\""
	s, ok := d.text(field, n, want)
	if !ok {
		return
	}
	v, err := netip.ParseAddrPort(s)
	if err != nil {
		d.addAt(place(n), field, fmt.Sprintf("%q is not an address with port", s), "want "+want)
		return
	}
	into.Set(reflect.ValueOf(v))
}

func scalarText(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	}
	return "", false
}

func kindOf(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.StringType, ast.LiteralType:
		return "text"
	case ast.IntegerType, ast.FloatType:
		return "a number"
	case ast.InfinityType, ast.NanType:
		return "not a finite number"
	case ast.BoolType:
		return "a truth value"
	case ast.NullType:
		return "empty"
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType:
		return "a YAML anchor, alias or merge, which a fleet file does not use (say it in defaults)"
	case ast.TagType:
		return "a YAML tag, which a fleet file does not use"
	}
	return "not a value"
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

type yamlField struct {
	name     string
	index    int
	required bool // no omitempty: the key must be there
}

type yamlFieldList []yamlField

func yamlFields(t reflect.Type) yamlFieldList {
	var list yamlFieldList
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		list = append(list, yamlField{name, i, options != "omitempty"})
	}
	return list
}

func (l yamlFieldList) find(name string) (yamlField, bool) {
	for _, f := range l {
		if f.name == name {
			return f, true
		}
	}
	return yamlField{}, false
}

func (l yamlFieldList) names() []string {
	var names []string
	for _, f := range l {
		names = append(names, f.name)
	}
	return names
}
