package ovh

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// The keys, the time and the signatures are those of the provider's own Go client's tests (ovh_test.go, MockTime).
func TestSignatureVector(t *testing.T) {
	const secret, consumer, at = "9ufkBmLaTQ9nz5yMUlg79taH0GNnzDjk", "5mBuy6SUQcRw2ZUxg0cG68BoDKpED4KY", 1457018875
	const body = `{"a":"b","c":"d"}`
	for _, c := range []struct{ method, body, want string }{
		{"GET", "", "$1$e9556054b6309771395efa467c22e627407461ad"},
		{"POST", body, "$1$ec2fb5c7a81f64723c77d2e5b609ae6f58a84fc1"},
		{"PUT", body, "$1$8a75a9e7c8e7296c9dbeda6a2a735eb6bd58ec4b"},
		{"DELETE", "", "$1$a1eecd00b3b02b6cf5708b84b9ff42059a950d85"},
	} {
		if got := sign(secret, consumer, c.method, "https://eu.api.ovh.com/1.0/auth", []byte(c.body), at); got != c.want {
			t.Errorf("%s: %s, want %s", c.method, got, c.want)
		}
	}
}

func TestRulesMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/*", "/me", true},
		{"/me", "/me", true},
		{"/me", "/me/order", false},
		{"/dedicated/server/*", "/dedicated/server/ns1/reboot", true},
		{"/dedicated/server/*", "/dedicated/server", false},
		{"/dedicated/server/*/task/*", "/dedicated/server/ns1/task/5", true},
		{"/dedicated/server/*/task", "/dedicated/server/ns1/reboot", false},
	} {
		if got := matches(c.pattern, c.path); got != c.want {
			t.Errorf("%s on %s: %v", c.pattern, c.path, got)
		}
	}
}

func TestURLAsTheClientWroteIt(t *testing.T) {
	for _, c := range []struct{ endpoint, target, want string }{
		{"", "/1.0/ip/192.0.2.1%2F32/reverse", "http://lab.test:8082/1.0/ip/192.0.2.1%2F32/reverse"},
		{"", "/1.0/me/order?date.from=2026-01-02T03%3A04%3A05Z", "http://lab.test:8082/1.0/me/order?date.from=2026-01-02T03%3A04%3A05Z"},
		{"https://ovh.lab.test/1.0", "/1.0/me", "https://ovh.lab.test/1.0/me"},
		{"https://ovh.lab.test/1.0", "/v1/me", "https://ovh.lab.test/v1/me"},
	} {
		o := &OVH{opt: Options{Endpoint: c.endpoint}}
		r := httptest.NewRequest("GET", c.target, nil)
		r.Host = "lab.test:8082"
		if got := o.urlOf(r); got != c.want {
			t.Errorf("%s at %q: %s, want %s", c.target, c.endpoint, got, c.want)
		}
	}
}

// FuzzServe sends what nobody would: whatever comes, the answer is one of the API's.
func FuzzServe(f *testing.F) {
	f.Add("GET", "/1.0/auth/time", "", "", "")
	f.Add("POST", "/1.0/ip/192.0.2.1%2F32/reverse", "{}", "key", "1457018875")
	f.Add("PUT", "/1.0/dedicated/server/ns1", `{"bootId":1}`, "key", "x")
	f.Add("POST", "/1.0/order/cart", `{"ovhSubsidiary":"FR"}`, "", "")
	f.Fuzz(func(t *testing.T, method, path, body, consumer, at string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(method+path, " \r\n\x00") || method == "" {
			t.Skip()
		}
		o := &OVH{opt: Options{ApplicationKey: "app", ApplicationSecret: "secret", ConsumerKey: "key"}, state: newState("")}
		if err := fill(&o.opt); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.RequestURI, r.URL.Path, r.URL.RawPath = method, path, path, path
		r.Header.Set("X-Ovh-Application", "app")
		r.Header.Set("X-Ovh-Consumer", consumer)
		r.Header.Set("X-Ovh-Timestamp", at)
		w := httptest.NewRecorder()
		o.serve(w, r)
		if w.Code < 200 || w.Code > 599 || w.Header().Get("X-Ovh-QueryID") == "" {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
	})
}
