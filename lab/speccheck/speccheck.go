// Package speccheck holds HTTP exchanges against a provider's published API description, so that a misreading shared
// by a driver and its simulator shows up. It is for tests: it sees every request and every answer and passes them on
// unchanged. The descriptions are not part of this project; where they are absent, tests say so and skip.
package speccheck

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
)

// Spec is a loaded description: one document or several.
type Spec struct {
	source
	docs []*document
}

// document is one file of it.
type document struct {
	doc   *openapi3.T
	paths [][]string
	names []string // the templates that paths were split from
}

// Load reads a provider's description from ../shared/specs beside the module, and skips the test where it is absent.
func Load(t testing.TB, api API) *Spec {
	t.Helper()
	s := &Spec{source: api.source()}
	for _, name := range s.files {
		path, err := find(name)
		if err != nil {
			t.Skipf("speccheck: %v: answers are not held against the provider's description", err)
		}
		d, err := load(path, s.patch)
		if err != nil {
			t.Fatal(err)
		}
		s.docs = append(s.docs, d)
	}
	return s
}

// Present says whether a provider's description is at hand, for tests that are worth running without it too.
func Present(api API) bool {
	for _, name := range api.source().files {
		if _, err := find(name); err != nil {
			return false
		}
	}
	return true
}

func find(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above the test")
		}
	}
	p := filepath.Join(dir, "..", "shared", "specs", name)
	_, err = os.Stat(p)
	return p, err
}

func load(path string, patch func(*document)) (*document, error) {
	doc, err := openapi3.NewLoader().LoadFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &document{doc: doc}
	patch(d)
	for name := range doc.Paths.Map() {
		d.names = append(d.names, name)
	}
	// Literal segments before parameters: /servers/actions is no server.
	slices.SortFunc(d.names, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "{", "\xff"), strings.ReplaceAll(b, "{", "\xff"))
	})
	for _, name := range d.names {
		d.paths = append(d.paths, strings.Split(strings.Trim(name, "/"), "/"))
	}
	return d, nil
}

// route finds the call in the description. Segments are told apart before they are unescaped: an address with its
// length, 192.0.2.1%2F32, is one.
func (s *Spec) route(r *http.Request) (*routers.Route, map[string]string) {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), s.prefix)
	if !ok {
		return nil, nil
	}
	got := strings.Split(strings.Trim(path, "/"), "/")
	for _, d := range s.docs {
		if route, params := d.route(r.Method, got); route != nil {
			return route, params
		}
	}
	return nil, nil
}

func (d *document) route(method string, got []string) (*routers.Route, map[string]string) {
	for i, want := range d.paths {
		item := d.doc.Paths.Value(d.names[i])
		op := item.GetOperation(method)
		if params, ok := fits(want, got); ok && op != nil {
			return &routers.Route{Spec: d.doc, Path: d.names[i], PathItem: item, Method: method, Operation: op}, params
		}
	}
	return nil, nil
}

func fits(want, got []string) (map[string]string, bool) {
	if len(want) != len(got) {
		return nil, false
	}
	params := map[string]string{}
	for i, w := range want {
		v, err := url.PathUnescape(got[i])
		switch {
		case err != nil:
			return nil, false
		case strings.HasPrefix(w, "{"):
			params[strings.Trim(w, "{}")] = v
		case w != v:
			return nil, false
		}
	}
	return params, true
}

// isBeyond says whether a path is one of those that no description has.
func (s *Spec) isBeyond(path string) bool {
	rest, ok := strings.CutPrefix(path, s.prefix)
	return ok && slices.ContainsFunc(s.beyond, func(b string) bool { return strings.HasPrefix(rest, b) })
}
