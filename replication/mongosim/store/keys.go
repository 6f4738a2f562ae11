package store

import (
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// part is one field of an index key on its way through a document.
type part struct {
	value   any
	missing bool
	path    []string // what is still to walk
	at      string   // what was walked, to tell whether two parts stand before the same array
	done    bool
}

// keysOf lists the index keys of doc, as MongoDB makes them: one for each element of an array, null for what is missing,
// undefined for an empty array. Two different arrays in one compound key are [ErrParallel]. No key means that a sparse
// index leaves the document out.
func (x *Spec) keysOf(doc bson.D) (keys [][]any, multikey bool, err error) {
	if len(x.Keys) == 1 && len(x.Keys[0].Path) == 1 { // nearly every index, without the general walk's garbage
		v, ok := field(doc, x.Keys[0].Path[0])
		if _, array := v.(bson.A); !array {
			if !ok && x.Sparse {
				return nil, false, nil
			}
			return [][]any{{v}}, false, nil
		}
	}
	parts := make([]part, len(x.Keys))
	for i, k := range x.Keys {
		parts[i] = part{value: doc, path: k.Path}
	}
	e := expansion{sparse: x.Sparse}
	if err := e.expand(parts); err != nil {
		return nil, false, err
	}
	return e.keys, e.multikey, nil
}

type expansion struct {
	sparse   bool
	keys     [][]any
	multikey bool
}

func (e *expansion) expand(parts []part) error {
	array := -1
	for i := range parts {
		parts[i].walk()
		if parts[i].done {
			continue
		}
		if array >= 0 && parts[i].at != parts[array].at {
			return ErrParallel
		}
		array = i
	}
	if array < 0 {
		e.emit(parts)
		return nil
	}
	e.multikey = true
	elements := parts[array].value.(bson.A)
	if len(elements) == 0 {
		return e.expand(stepInto(parts, nil, true))
	}
	for _, el := range elements {
		if err := e.expand(stepInto(parts, el, false)); err != nil {
			return err
		}
	}
	return nil
}

// stepInto replaces the array that the open parts stand before by one of its elements.
func stepInto(parts []part, element any, empty bool) []part {
	next := append([]part(nil), parts...)
	for i := range next {
		p := &next[i]
		if p.done {
			continue
		}
		_, isDoc := element.(bson.D)
		switch {
		case len(p.path) == 0 && empty:
			*p = part{value: bson.Undefined{}, done: true}
		case len(p.path) == 0:
			*p = part{value: element, done: true}
		case !isDoc:
			*p = part{missing: true, done: true}
		default:
			p.value, p.at = element, p.at+"[]"
		}
	}
	return next
}

// walk goes down through documents until the end of the path, a missing field, or an array that has to be expanded.
func (p *part) walk() {
	for !p.done {
		switch v := p.value.(type) {
		case bson.A:
			if len(p.path) == 0 {
				return
			}
			n, err := strconv.Atoi(p.path[0])
			if err != nil || n < 0 || n >= len(v) {
				return
			}
			p.step(v[n])
		case bson.D:
			if len(p.path) == 0 {
				p.done = true
				return
			}
			next, ok := field(v, p.path[0])
			if !ok {
				*p = part{missing: true, done: true}
				return
			}
			p.step(next)
		default:
			*p = part{value: v, missing: len(p.path) > 0, done: true}
		}
	}
}

func (p *part) step(to any) {
	p.at, p.value, p.path = p.at+"."+p.path[0], to, p.path[1:]
}

func (e *expansion) emit(parts []part) {
	key, missing := make([]any, len(parts)), 0
	for i, p := range parts {
		if p.missing {
			missing++
			continue
		}
		key[i] = p.value
	}
	if e.sparse && missing == len(parts) {
		return
	}
	e.keys = append(e.keys, key)
}

func field(d bson.D, name string) (any, bool) {
	for i := range d {
		if d[i].Key == name {
			return d[i].Value, true
		}
	}
	return nil, false
}

func splitPath(dotted string) []string { return strings.Split(dotted, ".") }
