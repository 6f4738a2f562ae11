// Package speccheck holds HTTP exchanges against a provider's published API description, so that a misreading shared
// by a driver and its simulator shows up. It is for tests: it sees every request and every answer and passes them on
// unchanged. The descriptions are not part of this project; where they are absent, tests say so and skip.
package speccheck

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// Spec is a loaded description.
type Spec struct {
	doc    *openapi3.T
	prefix string // of every path: /v1
	paths  [][]string
	names  []string // the templates that paths were split from
}

// Load reads hetzner-cloud.json from ../shared/specs beside the module, and skips the test where it is absent.
func Load(t testing.TB) *Spec {
	t.Helper()
	path, err := find("hetzner-cloud.json")
	if err != nil {
		t.Skipf("speccheck: %v: answers are not held against the provider's description", err)
	}
	s, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
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

func load(path string) (*Spec, error) {
	doc, err := openapi3.NewLoader().LoadFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	patch(doc)
	s := &Spec{doc: doc, prefix: "/v1"}
	for name := range doc.Paths.Map() {
		s.names = append(s.names, name)
	}
	// Literal segments before parameters: /servers/actions is no server.
	slices.SortFunc(s.names, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "{", "\xff"), strings.ReplaceAll(b, "{", "\xff"))
	})
	for _, name := range s.names {
		s.paths = append(s.paths, strings.Split(strings.Trim(name, "/"), "/"))
	}
	return s, nil
}

// patch corrects what the description has wrong or stale: server and primary IP lost datacenter on 2026-07-01, and
// names may be given as ids, which the provider's own Go client does.
func patch(doc *openapi3.T) {
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, class := range []string{"4xx", "5xx"} { // the library knows them in capitals only
				if r := op.Responses.Value(class); r != nil {
					op.Responses.Set(strings.ToUpper(class), r)
					op.Responses.Delete(class)
				}
			}
		}
	}
	optional(doc.Components.Schemas, "datacenter")
	for _, p := range []string{"/primary_ips", "/primary_ips/{id}"} {
		for _, op := range doc.Paths.Value(p).Operations() {
			for _, r := range op.Responses.Map() {
				if mt := r.Value.Content["application/json"]; mt != nil {
					forget(mt.Schema, "datacenter", 6)
				}
			}
		}
	}
	if in := doc.Components.Schemas["create_server_request"]; in != nil {
		for _, name := range []string{"image", "server_type", "location"} {
			in.Value.Properties[name].Value.Type = &openapi3.Types{"string", "integer"}
		}
		in.Value.Properties["ssh_keys"].Value.Items.Value.Type = &openapi3.Types{"string", "integer"}
	}
}

func optional(all openapi3.Schemas, field string) {
	for _, s := range all {
		forget(s, field, 6)
	}
}

// forget makes a field optional in a schema and those inside it.
func forget(s *openapi3.SchemaRef, field string, depth int) {
	if s == nil || s.Value == nil || depth == 0 {
		return
	}
	s.Value.Required = slices.DeleteFunc(s.Value.Required, func(r string) bool { return r == field })
	for _, p := range s.Value.Properties {
		forget(p, field, depth-1)
	}
	forget(s.Value.Items, field, depth-1)
}

// Violation is one request or answer that does not fit the description.
type Violation struct {
	Exchange string // POST /v1/servers → 201
	Problem  string
}

func (v Violation) String() string { return v.Exchange + ": " + v.Problem }

// Check watches exchanges.
type Check struct {
	spec   *Spec
	report func(Violation)

	mu   sync.Mutex
	seen map[string]int // guarded by mu: exchanges by method, template and status
}

// Middleware returns a check that reports violations as they happen, from the server's goroutines.
func (s *Spec) Middleware(report func(Violation)) *Check {
	return &Check{spec: s, report: report, seen: map[string]int{}}
}

// Seen counts the exchanges so far, by "METHOD /template STATUS".
func (c *Check) Seen() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]int{}
	for k, v := range c.seen {
		out[k] = v
	}
	return out
}

// Total counts the exchanges so far.
func (c *Check) Total() int {
	n := 0
	for _, v := range c.Seen() {
		n += v
	}
	return n
}

// Wrap puts the check around an API. Answers are passed on after they were looked at; a handler that breaks the
// connection still breaks it.
func (c *Check) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // the client went away
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		c.examine(r, body, rec)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()) // the client may be gone
	})
}

func (c *Check) examine(r *http.Request, body []byte, rec *httptest.ResponseRecorder) {
	route, params := c.spec.route(r)
	name := r.URL.Path
	if route != nil {
		name = route.Path
	}
	c.mu.Lock()
	c.seen[fmt.Sprintf("%s %s %d", r.Method, name, rec.Code)]++
	c.mu.Unlock()
	told := func(problem string, err error) {
		c.report(Violation{fmt.Sprintf("%s %s → %d", r.Method, r.URL.Path, rec.Code), problem + ": " + firstLines(err.Error())})
	}
	if route == nil {
		if rec.Code != http.StatusNotFound {
			told("route", fmt.Errorf("the description has no such call"))
		}
		return
	}
	if !strings.Contains(rec.Header().Get("Content-Type"), "json") && rec.Code >= 500 {
		return // a gateway's own answer, which no description knows
	}
	opt := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, SkipSettingDefaults: true}
	again := r.Clone(context.Background())
	again.Body = io.NopCloser(bytes.NewReader(body))
	in := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: opt}
	if rec.Code < 400 { // a refused request may be wrong
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			told("request", err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Options: opt}
	out.SetBodyBytes(rec.Body.Bytes())
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		told("answer", err)
	}
}

func firstLines(s string) string {
	lines := strings.SplitN(s, "\n", 12)
	return strings.Join(lines[:min(len(lines), 11)], "\n")
}

// route finds the call in the description.
func (s *Spec) route(r *http.Request) (*routers.Route, map[string]string) {
	path, ok := strings.CutPrefix(r.URL.Path, s.prefix)
	if !ok {
		return nil, nil
	}
	got := strings.Split(strings.Trim(path, "/"), "/")
	for i, want := range s.paths {
		item := s.doc.Paths.Value(s.names[i])
		op := item.GetOperation(r.Method)
		if params, ok := fits(want, got); ok && op != nil {
			return &routers.Route{Spec: s.doc, Path: s.names[i], PathItem: item, Method: r.Method, Operation: op}, params
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
		if strings.HasPrefix(w, "{") {
			params[strings.Trim(w, "{}")] = got[i]
		} else if w != got[i] {
			return nil, false
		}
	}
	return params, true
}
