package playbooks

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"popfleet/inventory"
)

// source knows where each part of a playbook stands in its file.
type source struct {
	file string
	at   map[string]place // field path → where its key or item begins
}

type place struct{ line, column int }

// problem is something wrong with the field; a field the file does not mention is reported at its parent.
func (s *source) problem(field, message, expected string) inventory.Problem {
	p := place{1, 1}
	for f := field; f != ""; {
		if at, ok := s.at[f]; ok {
			p = at
			break
		}
		i := strings.LastIndexAny(f, ".[")
		if i < 0 {
			break
		}
		f = f[:i]
	}
	return inventory.Problem{File: s.file, Line: p.line, Column: p.column, Field: field, Message: message, Expected: expected}
}

// parseAll parses every file, so that the problems of all of them are reported together.
func parseAll(files, templates []text) (*Set, error) {
	set := &Set{templates: templates}
	var problems []inventory.Problem
	for _, f := range files {
		p, bad := parse(f.name, f.body)
		problems = append(problems, bad...)
		if p != nil {
			set.playbooks = append(set.playbooks, p)
		}
	}
	if len(problems) > 0 {
		return nil, &inventory.ErrInvalid{Problems: problems}
	}
	return set, nil
}

// Parse reads one playbook strictly. Problems are an [*inventory.ErrInvalid].
func Parse(name, body string) (*Playbook, error) {
	p, problems := parse(name, body)
	if len(problems) > 0 {
		return nil, &inventory.ErrInvalid{Problems: problems}
	}
	return p, nil
}

func parse(name, body string) (*Playbook, []inventory.Problem) {
	p := &Playbook{source: source{file: name, at: map[string]place{}}}
	file, err := parser.ParseBytes([]byte(body), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, []inventory.Problem{yamlProblem(name, err)}
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.CommentType {
		return nil, []inventory.Problem{p.problem("", "is empty or more than one YAML document", "expected one mapping that begins with playbook:")}
	}
	root := file.Docs[0].Body
	w := walker{src: &p.source}
	w.walk("", root, reflect.TypeOf(*p))
	if len(w.problems) > 0 {
		return nil, w.problems
	}
	if err := yaml.NodeToValue(root, p); err != nil {
		return nil, []inventory.Problem{yamlProblem(name, err)}
	}
	if problems := p.check(); len(problems) > 0 {
		return nil, problems
	}
	return p, nil
}

func yamlProblem(file string, err error) inventory.Problem {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		at := tokenPlace(e.GetToken())
		return inventory.Problem{File: file, Line: at.line, Column: at.column, Message: e.GetMessage()}
	}
	return inventory.Problem{File: file, Line: 1, Column: 1, Message: err.Error()}
}

// walker notes where everything stands and finds unknown and doubled keys; values are left to the decoder.
type walker struct {
	src      *source
	problems []inventory.Problem
}

func (w *walker) walk(field string, n ast.Node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		w.mapping(field, n, func(key string) (reflect.Type, bool) { return fieldOf(t, key) })
	case reflect.Map:
		w.mapping(field, n, func(string) (reflect.Type, bool) { return t.Elem(), true })
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			w.wrong(field, n, "a list")
			return
		}
		for i, v := range seq.Values {
			child := fmt.Sprintf("%s[%d]", field, i)
			w.src.at[child] = nodePlace(v)
			w.walk(child, v, t.Elem())
		}
	default:
		if _, ok := n.(ast.ScalarNode); !ok || n.Type() == ast.NullType {
			w.wrong(field, n, "a value")
		}
	}
}

func (w *walker) wrong(field string, n ast.Node, want string) {
	if field != "" {
		w.src.at[field] = nodePlace(n)
	}
	w.problems = append(w.problems, w.src.problem(field, "is "+strings.ToLower(n.Type().String()), "expected "+want))
}

func (w *walker) mapping(field string, n ast.Node, typeOf func(string) (reflect.Type, bool)) {
	m, ok := n.(ast.MapNode)
	if !ok {
		w.wrong(field, n, "a mapping")
		return
	}
	for it := m.MapRange(); it.Next(); {
		key := it.Key().GetToken().Value
		child := strings.TrimPrefix(field+"."+key, ".")
		_, twice := w.src.at[child]
		w.src.at[child] = tokenPlace(it.Key().GetToken())
		t, known := typeOf(key)
		switch {
		case twice:
			w.problems = append(w.problems, w.src.problem(child, "is said twice", "keep one"))
		case !known:
			w.problems = append(w.problems, w.src.problem(child, "unknown key", ""))
		default:
			w.walk(child, it.Value(), t)
		}
	}
}

func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == key && key != "" {
			return f.Type, true
		}
	}
	return nil, false
}

func nodePlace(n ast.Node) place {
	if m, ok := n.(ast.MapNode); ok {
		if it := m.MapRange(); it.Next() {
			return tokenPlace(it.Key().GetToken())
		}
	}
	return tokenPlace(n.GetToken())
}

func tokenPlace(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(1, t.Position.Line), max(1, t.Position.Column)}
}

// check looks at what needs no node: names that must be there, words from a closed set, modes.
func (p *Playbook) check() []inventory.Problem {
	var out []inventory.Problem
	bad := func(field, message, expected string) { out = append(out, p.problem(field, message, expected)) }
	word := func(field, got string, known ...string) {
		if !slices.Contains(known, got) {
			bad(field, fmt.Sprintf("%q", got), "expected "+strings.Join(known, " or "))
		}
	}
	if p.Name == "" {
		bad("playbook", "is missing", "a word for people")
	}
	if p.Service != nil && p.Service.Name == "" {
		bad("service.name", "is missing", "")
	}
	for i, f := range p.Files {
		if f.Format != "" {
			word(fmt.Sprintf("files[%d].format", i), f.Format, "json")
		}
		if _, err := mode(f.Mode, 0o644); err != nil {
			bad(fmt.Sprintf("files[%d].mode", i), err.Error(), `expected octal text, e.g. "0640"`)
		}
	}
	for i, d := range p.Dirs {
		if _, err := mode(d.Mode, 0o755); err != nil {
			bad(fmt.Sprintf("dirs[%d].mode", i), err.Error(), `expected octal text, e.g. "0750"`)
		}
	}
	for i, o := range p.Ports {
		word(fmt.Sprintf("ports[%d].proto", i), o.Proto, "tcp", "udp")
		word(fmt.Sprintf("ports[%d].from", i), o.From, "any", "fleet")
		if o.Port == 0 {
			bad(fmt.Sprintf("ports[%d].port", i), "is missing or 0", "")
		}
	}
	slices.SortStableFunc(out, func(a, b inventory.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}
