package playbooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// renderer executes the templates of a set over one node's Vars.
type renderer struct {
	shared *template.Template
	vars   Vars
}

func newRenderer(templates []text, vars Vars) (*renderer, error) {
	shared := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"json": toJSON, "env": envLine})
	for _, t := range templates {
		if _, err := shared.New(t.name).Parse(t.body); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return &renderer{shared, vars}, nil
}

const maxRenderedBytes = 2 << 20

func (r *renderer) text(body string) (string, error) {
	if !strings.Contains(body, "{{") {
		return body, nil
	}
	own, err := r.shared.Clone()
	if err != nil {
		return "", err
	}
	t, err := own.New("content").Parse(body)
	if err != nil {
		return "", plain(err)
	}
	var out bounded
	if err := t.Execute(&out, r.vars); err != nil {
		return "", plain(err)
	}
	return out.String(), nil
}

// truth renders a condition; empty is whenEmpty.
func (r *renderer) truth(body string, whenEmpty bool) (bool, error) {
	if body == "" {
		return whenEmpty, nil
	}
	s, err := r.text(body)
	if err != nil {
		return false, err
	}
	b, err := strconv.ParseBool(strings.TrimSpace(s))
	if err != nil {
		return false, fmt.Errorf("renders to %q, expected true or false", s)
	}
	return b, nil
}

// bounded refuses a template that loops over itself before it fills the memory.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxRenderedBytes {
		return 0, fmt.Errorf("renders to more than %d bytes", maxRenderedBytes)
	}
	return b.Buffer.Write(p)
}

var templatePlace = regexp.MustCompile(`^template: [^ ]*?:(\d+)(:\d+)?: (executing "[^"]*" at )?`)

// plain turns text/template's message into one about the line of the content.
func plain(err error) error {
	return errors.New(templatePlace.ReplaceAllString(err.Error(), "line $1 of the text: "))
}

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// canonical is one JSON value with the keys in the order written, indented.
func canonical(s string) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(strings.TrimSpace(s)), "", "  "); err != nil {
		return nil, fmt.Errorf("is not JSON once rendered: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// envLine is one assignment as systemd's EnvironmentFile= reads it (systemd.exec(5)): in double quotes, with backslash,
// quote, dollar and backtick escaped.
func envLine(name, value string) (string, error) {
	if strings.ContainsAny(value, "\x00\n\r") {
		return "", fmt.Errorf("environment variable %s: more than one line", name)
	}
	return name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(value) + `"`, nil
}

// mode reads octal text.
func mode(s string, whenEmpty uint32) (uint32, error) {
	if s == "" {
		return whenEmpty, nil
	}
	m, err := strconv.ParseUint(s, 8, 12)
	if err != nil || len(s) < 3 {
		return 0, fmt.Errorf("%q", s)
	}
	return uint32(m), nil
}
