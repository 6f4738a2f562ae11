package inventory

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const maxFileBytes = 1 << 20

// Load reads and checks the fleet file at path. A file that is wrong is an [*ErrInvalid].
func Load(path string) (*Fleet, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read fleet file: %w (fleet init writes one)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read fleet file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read fleet file: %w", err)
	}
	return Parse(path, data)
}

// Parse checks data, the content of the fleet file called name, and returns the fleet with what was not said filled
// from [Default]. Everything wrong is reported at once, as an [*ErrInvalid].
func Parse(name string, data []byte) (*Fleet, error) {
	r := &report{file: name, at: map[string]position{}}
	f := Default()
	root, ok := tree(r, data)
	if ok {
		d := decoder{report: r}
		d.value("", root, reflect.ValueOf(f).Elem())
		check(r, f)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// YAML writes f as a fleet file without comments; [Parse] reads it back to an equal fleet.
func (f *Fleet) YAML() ([]byte, error) { return yaml.Marshal(f) }

// tree parses data into the mapping at its root; a problem was noted when it returns false.
func tree(r *report, data []byte) (ast.Node, bool) {
	fail := func(p position, message, expected string) (ast.Node, bool) {
		r.addAt(p, "", message, expected)
		return nil, false
	}
	start := position{1, 1}
	if len(data) > maxFileBytes {
		return fail(start, fmt.Sprintf("the file is larger than %d bytes", maxFileBytes), "")
	}
	tokens := lexer.Tokenize(string(data))
	if len(tokens) > maxTokens {
		return fail(tokenPlace(tokens[maxTokens]), fmt.Sprintf("the file holds more than %d YAML tokens", maxTokens), "a thousand nodes take about 15000")
	}
	if p, deep := tooDeep(tokens); deep {
		return fail(p, fmt.Sprintf("nested deeper than %d levels", maxDepth), "")
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		p, message := syntaxError(err)
		return fail(p, message, "")
	}
	return onlyDocument(file, fail)
}

func onlyDocument(file *ast.File, fail func(position, string, string) (ast.Node, bool)) (ast.Node, bool) {
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType {
			bodies = append(bodies, d.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		return fail(position{1, 1}, "the file is empty", "fleet init writes one to start from")
	case len(bodies) > 1:
		return fail(place(bodies[1]), "a second YAML document", "one fleet, one document")
	}
	if _, ok := bodies[0].(ast.MapNode); !ok {
		return fail(place(bodies[0]), "the file is "+kindOf(bodies[0]), "want a mapping that begins with version: 1")
	}
	return bodies[0], true
}

func syntaxError(err error) (position, string) {
	var e yaml.Error
	if !errors.As(err, &e) {
		return position{1, 1}, "not YAML: " + err.Error()
	}
	return tokenPlace(e.GetToken()), "not YAML: " + e.GetMessage()
}

// maxTokens bounds the parser's time, which grows with the square of a mapping's entries: 20,000 keys take seconds.
const maxTokens = 60_000

// maxDepth bounds nesting before the parser, which recurses, sees it. A fleet file is six levels deep.
const maxDepth = 64

// tooDeep counts brackets, and the marks that can nest on one line ("- - -", "? ? ?"); nesting by indentation is
// bounded by the size of the file, whose lines would grow with it.
func tooDeep(tokens token.Tokens) (position, bool) {
	flow, line, marks := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, marks = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			marks++
		}
		if flow > maxDepth || marks > maxDepth || t.Position.IndentNum > 8*maxDepth {
			return tokenPlace(t), true
		}
	}
	return position{}, false
}

func tokenPlace(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// place is where a node begins; a mapping begins at its first key, not at the colon.
func place(n ast.Node) position {
	if m, ok := n.(ast.MapNode); ok {
		if it := m.MapRange(); it.Next() {
			return tokenPlace(it.Key().GetToken())
		}
	}
	return tokenPlace(n.GetToken())
}
