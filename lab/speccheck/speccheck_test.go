package speccheck

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A check that finds nothing wrong proves nothing unless it finds what is wrong.
func TestCheckSeesWhatIsWrong(t *testing.T) {
	s := Load(t)
	for _, c := range []struct{ name, method, path, body, answer, problem string }{
		{"fits", "POST", "/v1/ssh_keys", `{"name":"k","public_key":"x"}`, `{"ssh_key":{"id":1,"name":"k","fingerprint":"f","public_key":"x","labels":{},"created":"2026-01-02T03:04:05Z"}}`, ""},
		{"answer lacks a field", "POST", "/v1/ssh_keys", `{"name":"k","public_key":"x"}`, `{"ssh_key":{"id":1,"name":"k","public_key":"x","labels":{},"created":"2026-01-02T03:04:05Z"}}`, "fingerprint"},
		{"answer has a wrong type", "GET", "/v1/actions?id=1", ``, `{"actions":[{"id":"1"}]}`, "id"},
		{"request has a wrong type", "POST", "/v1/ssh_keys", `{"name":5,"public_key":"x"}`, `{}`, "request"},
		{"no such call", "GET", "/v1/nothing", ``, `{}`, "no such call"},
	} {
		var got []string
		check := s.Middleware(func(v Violation) { got = append(got, v.String()) })
		status := http.StatusOK
		if c.method == http.MethodPost {
			status = http.StatusCreated
		}
		h := check.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, c.answer)
		}))
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		if c.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		all := strings.Join(got, "\n")
		if (all == "") != (c.problem == "") || !strings.Contains(all, c.problem) {
			t.Errorf("%s: reported %q, want %q", c.name, all, c.problem)
		}
		if rec.Body.String() != c.answer || rec.Code != status || check.Total() != 1 {
			t.Errorf("%s: the exchange was changed or not counted", c.name)
		}
	}
}
