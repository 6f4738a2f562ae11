package hetznerrobot

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// spec is a description of the Robot API that nobody here wrote; it is not part of the project. Every request of these
// tests is held against it where it is present. It describes no ordering.
type spec struct{ doc *openapi3.T }

const specPath = "../../../shared/specs/hetzner-robot.yaml"

var exchanges atomic.Int64

var loadOnce = sync.OnceValues(func() (*openapi3.T, error) { return openapi3.NewLoader().LoadFromFile(specPath) })

func loadSpec(t testing.TB) *spec {
	if _, err := os.Stat(specPath); err != nil {
		return nil
	}
	doc, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	return &spec{doc}
}

// TestSpec says whether the description was there.
func TestSpec(t *testing.T) {
	if loadSpec(t) == nil {
		t.Skip("../shared/specs/hetzner-robot.yaml is absent: requests are not held against it")
	}
}

func (s *spec) check(t testing.TB, r *http.Request, raw string) {
	if strings.HasPrefix(r.URL.Path, "/order/") {
		return
	}
	exchanges.Add(1)
	op := s.find(r.Method, r.URL.Path)
	if op == nil {
		t.Errorf("%s %s is not in the description", r.Method, r.URL.Path)
		return
	}
	if op.RequestBody == nil {
		if raw != "" {
			t.Errorf("%s %s: a body where none is described", r.Method, r.URL.Path)
		}
		return
	}
	form, err := url.ParseQuery(raw)
	if err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		return
	}
	schema := op.RequestBody.Value.Content["application/x-www-form-urlencoded"].Schema.Value
	value := map[string]any{}
	for name, all := range form {
		name = strings.TrimSuffix(name, "[]") // the bracket form, which OpenAPI cannot write
		p := schema.Properties[name]
		switch {
		case p == nil:
			t.Errorf("%s %s: field %s is not described", r.Method, r.URL.Path, name)
		case p.Value.Type.Is("array"):
			list := []any{}
			for _, v := range all {
				list = append(list, v)
			}
			value[name] = list
		default:
			value[name] = all[0]
		}
	}
	if err := schema.VisitJSON(value); err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
	}
}

func (s *spec) find(method, path string) *openapi3.Operation {
	have := strings.Split(path, "/")
	var best *openapi3.Operation
	score := -1
	for name, item := range s.doc.Paths.Map() {
		want := strings.Split(name, "/")
		if len(want) != len(have) || item.GetOperation(method) == nil {
			continue
		}
		literal, ok := 0, true
		for i := range want {
			if want[i] == have[i] {
				literal++
			} else if !strings.HasPrefix(want[i], "{") {
				ok = false
			}
		}
		if ok && literal > score {
			best, score = item.GetOperation(method), literal
		}
	}
	return best
}
