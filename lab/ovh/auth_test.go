package ovh

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"popfleet/lab/scripted"
)

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
	backend := scripted.New(context.Background(), scripted.Options{})
	o, err := New(context.Background(), Options{ApplicationKey: "app", ApplicationSecret: "secret", ConsumerKey: "key", Backend: backend})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { o.Close(); backend.Close() })
	f.Fuzz(func(t *testing.T, method, path, body, consumer, at string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(method+path, " \r\n\x00") || method == "" {
			t.Skip()
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
