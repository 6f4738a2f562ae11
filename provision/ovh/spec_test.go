package ovh_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// spec is OVH's description of its API, in ../shared/specs beside the module; it is not part of the project.
type spec struct{ docs []*openapi3.T }

var readSpecOnce = sync.OnceValues(readSpec) // it takes a second

// loadSpec says so when the descriptions are absent; requests are not held against them then.
func loadSpec(t testing.TB) *spec {
	s, err := readSpecOnce()
	if err != nil {
		t.Logf("requests are not held against OVH's description: %v", err)
	}
	return s
}

func readSpec() (*spec, error) {
	s := &spec{}
	for _, name := range []string{"ovh-baremetal.json", "ovh-ip.json", "ovh-me.json"} {
		path := filepath.Join("..", "..", "..", "shared", "specs", name)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("absent: %w", err)
		}
		doc, err := openapi3.NewLoader().LoadFromFile(path)
		if err != nil {
			return nil, err
		}
		// Named by every call and missing in the description.
		doc.Components.SecuritySchemes = openapi3.SecuritySchemes{"oAuth2AuthCode": &openapi3.SecuritySchemeRef{
			Value: openapi3.NewSecurityScheme().WithType("http").WithScheme("bearer")}}
		s.docs = append(s.docs, doc)
	}
	return s, nil
}

// check holds a request and the fake's answer against the description. /order is in none.
func (s *spec) check(t testing.TB, r *http.Request, body []byte, rec *httptest.ResponseRecorder) {
	if strings.HasPrefix(r.URL.Path, "/1.0/order/") || rec.Code >= 400 {
		return
	}
	route, params := s.route(r)
	if route == nil {
		t.Errorf("%s %s is in no description", r.Method, r.URL.Path)
		return
	}
	copied := r.Clone(context.Background())
	copied.Body = io.NopCloser(bytes.NewReader(body))
	opt := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
		SkipSettingDefaults: true}
	in := &openapi3filter.RequestValidationInput{Request: copied, PathParams: params, Route: route, Options: opt}
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
		t.Errorf("request %s %s: %v", r.Method, r.URL.Path, err)
	}
	if r.Method != http.MethodGet { // writes answer null where the description says nothing
		return
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Options: opt}
	out.SetBodyBytes(rec.Body.Bytes())
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		t.Errorf("the fake's answer to %s %s: %v", r.Method, r.URL.Path, err)
	}
}

func (s *spec) route(r *http.Request) (*routers.Route, map[string]string) {
	got := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/1.0/"), "/")
	var best *routers.Route
	var params map[string]string
	for _, doc := range s.docs {
		for name, item := range doc.Paths.Map() {
			op := item.GetOperation(r.Method)
			p, ok := fits(strings.Split(strings.Trim(name, "/"), "/"), got)
			if op != nil && ok && (best == nil || len(p) < len(params)) {
				best, params = &routers.Route{Spec: doc, Path: name, PathItem: item, Method: r.Method, Operation: op}, p
			}
		}
	}
	return best, params
}

func fits(want, got []string) (map[string]string, bool) {
	params := map[string]string{}
	if len(want) != len(got) {
		return nil, false
	}
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
