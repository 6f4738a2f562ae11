package speccheck

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

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

	mu    sync.Mutex
	seen  map[string]int // guarded by mu: exchanges by method, template and status
	apart int            // guarded by mu: of these, what no description covers
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

// Apart counts the exchanges whose call or status no description has. Of these, errors were held against the shape that
// the provider's errors have in general, and nothing else.
func (c *Check) Apart() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apart
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
	apart := route == nil || !described(route, rec.Code)
	c.count(fmt.Sprintf("%s %s %d", r.Method, name, rec.Code), apart)
	told := func(problem string, err error) {
		c.report(Violation{fmt.Sprintf("%s %s → %d", r.Method, r.URL.Path, rec.Code), problem + ": " + firstLines(err.Error())})
	}
	if route == nil && rec.Code < 400 && !c.spec.isBeyond(r.URL.Path) {
		told("route", fmt.Errorf("the description has no such call"))
		return
	}
	if !strings.Contains(rec.Header().Get("Content-Type"), "json") && rec.Code >= 500 {
		return // a gateway's own answer, which no description knows
	}
	failed := rec.Code >= 400 && c.spec.failure != nil
	if failed {
		if err := c.spec.failure(rec.Code, rec.Body.Bytes()); err != nil {
			told("error", err)
		}
	}
	if apart {
		if failed {
			return
		}
		if route != nil || rec.Code != http.StatusNotFound && !c.spec.isBeyond(r.URL.Path) {
			told("answer", fmt.Errorf("the description has no such call or status"))
		}
		return
	}
	opt := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, SkipSettingDefaults: true}
	in, err := request(r, body, route, params, opt)
	if err == nil {
		err = openapi3filter.ValidateRequest(context.Background(), in)
	}
	if err != nil && rec.Code < 400 { // a refused request may be wrong
		told("request", err)
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Options: opt}
	out.SetBodyBytes(rec.Body.Bytes())
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		told("answer", err)
	}
}

func (c *Check) count(exchange string, apart bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[exchange]++
	if apart {
		c.apart++
	}
}

// described says whether the description has this status for the call, by itself or by its class.
func described(route *routers.Route, status int) bool {
	all := route.Operation.Responses
	return all.Status(status) != nil || all.Default() != nil
}

// request is what the library is to look at.
func request(r *http.Request, body []byte, route *routers.Route, params map[string]string, opt *openapi3filter.Options) (*openapi3filter.RequestValidationInput, error) {
	again := r.Clone(context.Background())
	var err error
	if rb := route.Operation.RequestBody; rb != nil && rb.Value.Content[formType] != nil {
		body, err = plainForm(body, rb.Value.Content[formType].Schema.Value)
	}
	again.Body = io.NopCloser(bytes.NewReader(body))
	return &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: opt}, err
}

func firstLines(s string) string {
	lines := strings.SplitN(s, "\n", 12)
	return strings.Join(lines[:min(len(lines), 11)], "\n")
}
