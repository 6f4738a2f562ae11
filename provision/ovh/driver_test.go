package ovh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popfleet/inventory"
	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// The signature is the one that OVH's documentation describes, for the keys and the moment of go-ovh's own tests; the
// sum was made by hand with sha1sum.
func TestSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []http.Header
		d, err := ovh.New(ovh.Options{Endpoint: "ovh-eu", ApplicationKey: inventory.SecretText(appKey),
			ApplicationSecret: inventory.SecretText(appSecret), ConsumerKey: inventory.SecretText(consumerKey),
			Servers: map[string]string{"gra-1": service},
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.URL.String() == "https://eu.api.ovh.com/1.0/auth/time" {
					if r.Header.Get("X-Ovh-Signature") != "" {
						t.Error("the time is asked for with a signature")
					}
					return answer(200, "1457018875"), nil
				}
				got = append(got, r.Header)
				return answer(404, `{"class":"Client::NotFound","message":"m"}`), nil
			})})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := d.Describe(t.Context(), "demo", "gra-1"); ok || err != nil {
			t.Fatalf("describe: %t %v", ok, err)
		}
		want := map[string]string{"X-Ovh-Application": appKey, "X-Ovh-Consumer": consumerKey, "X-Ovh-Timestamp": "1457018875",
			"X-Ovh-Signature": "$1$632da4d9c5a60aaed5a1909a9a19722b4c06bb16"}
		for k, v := range want {
			if len(got) != 1 || got[0].Get(k) != v {
				t.Errorf("%s: %q, want %q", k, got[0].Get(k), v)
			}
		}
	})
}

func TestEndpointsAndKeys(t *testing.T) {
	good := ovh.Options{ApplicationKey: inventory.SecretText("a"), ApplicationSecret: inventory.SecretText("b"),
		ConsumerKey: inventory.SecretText("c")}
	for name, c := range map[string]struct {
		change func(*ovh.Options)
		want   string
	}{
		"good":          {func(*ovh.Options) {}, ""},
		"us":            {func(o *ovh.Options) { o.Endpoint = "ovh-us" }, ""},
		"url":           {func(o *ovh.Options) { o.Endpoint = "http://127.0.0.1:1/1.0/" }, ""},
		"no url":        {func(o *ovh.Options) { o.Endpoint = "ovh-mars" }, "ovh-mars"},
		"user in url":   {func(o *ovh.Options) { o.Endpoint = "https://me:secret@example.org" }, "expected"},
		"no key":        {func(o *ovh.Options) { o.ConsumerKey = nil }, "no consumer key"},
		"empty key":     {func(o *ovh.Options) { o.ApplicationSecret = inventory.SecretText("") }, "no application secret"},
		"path as name":  {func(o *ovh.Options) { o.Servers = map[string]string{"n": "../me"} }, "service name"},
		"one for two":   {func(o *ovh.Options) { o.Servers = map[string]string{"n": "ns1.x", "m": "ns1.x"} }, "two nodes, m and n"},
		"default paths": {func(o *ovh.Options) { o.Endpoint = "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			c.change(&o)
			_, err := ovh.New(o)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestDescribeAndServers(t *testing.T) {
	f := newFake(t)
	f.add("ns2.ip-192-0-2.eu", "192.0.2.20")
	d := f.driver(t, func(o *ovh.Options) {
		o.Servers = map[string]string{"gra-1": service, "gra-2": "ns2.ip-192-0-2.eu", "gra-3": "ns3.ip-192-0-2.eu"}
	})
	all, err := d.Servers(t.Context(), "demo")
	if err != nil || len(all) != 2 {
		t.Fatalf("servers %v %v", all, err)
	}
	s := all["gra-1"]
	if s.ID != service || s.Node != "gra-1" || s.Addr4.String() != "192.0.2.10" || s.Addr6.String() != "2001:db8:7::1" ||
		s.Location != "gra2" || s.Type != "rise" || s.Off || s.RescueEnabled || s.Trouble != "" {
		t.Errorf("server %+v", s)
	}
	before := len(f.calls)
	f.edit(func(s *fakeServer) { s.fields["bootId"], s.fields["powerState"] = rescueID, "poweroff" })
	s, ok, err := d.Describe(t.Context(), "demo", "gra-1")
	if err != nil || !ok || !s.RescueEnabled || !s.Off {
		t.Errorf("describe %+v %t %v", s, ok, err)
	}
	if n := len(f.calls) - before; n != 2 { // the server, and a boot that was not read yet
		t.Errorf("%d calls, want 2", n)
	}
	if _, ok, err := d.Describe(t.Context(), "demo", "gra-9"); ok || err != nil {
		t.Errorf("a node without server: %t %v", ok, err)
	}
}

func TestEnsure(t *testing.T) {
	for name, c := range map[string]struct {
		server string
		edit   func(*fakeServer)
		status int
		kind   error
		says   string
	}{
		"ok":        {server: service},
		"unnamed":   {kind: provider.ErrNotAdopted, says: "service name"},
		"unknown":   {server: "ns8.example.org", kind: provider.ErrNotFound, says: "control panel"},
		"no name":   {server: "../../me", kind: provider.ErrNotFound},
		"of gra-2":  {server: "ns2.example.org", kind: provider.ErrNameTaken, says: "gra-2"},
		"hacked":    {server: service, edit: func(s *fakeServer) { s.fields["state"] = "hackedBlocked" }, says: "hackedBlocked"},
		"expired":   {server: service, status: 460, kind: provider.ErrExpired, says: "renew"},
		"forbidden": {server: service, status: 403, kind: provider.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.add("ns2.example.org", "192.0.2.20")
			d := f.driver(t, func(o *ovh.Options) { o.Servers = map[string]string{"gra-2": "ns2.example.org"} })
			if c.edit != nil {
				f.edit(c.edit)
			}
			if c.status != 0 {
				f.before = func(w http.ResponseWriter, r *http.Request) bool {
					newError(w, c.status, "Client::Refused", "refused")
					return true
				}
			}
			s, err := d.Ensure(t.Context(), provider.Wanted{Fleet: "demo", Node: "gra-1", Server: c.server})
			if c.kind == nil && c.says == "" {
				if err != nil || s.ID != service {
					t.Fatalf("ensure: %+v %v", s, err)
				}
				if again, ok, err := d.Describe(t.Context(), "demo", "gra-1"); !ok || err != nil || again != s {
					t.Errorf("describe after it: %+v %t %v", again, ok, err)
				}
				return
			}
			if err == nil || (c.kind != nil && !errors.Is(err, c.kind)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v with %q", err, c.kind, c.says)
			}
			if f.count("POST", "") > 0 {
				t.Error("something was ordered or changed")
			}
		})
	}
}

func TestAnExpiredServerDelaysNoOther(t *testing.T) {
	f := newFake(t)
	f.add("ns2.ip-192-0-2.eu", "192.0.2.20")
	d := f.driver(t, func(o *ovh.Options) { o.Servers["gra-2"] = "ns2.ip-192-0-2.eu" })
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, service) {
			newError(w, 460, "Client::ServiceExpired", "expired")
			return true
		}
		return false
	}
	all, err := d.Servers(t.Context(), "demo")
	if err != nil || all["gra-1"].Trouble != "expired" || all["gra-2"].Trouble != "" {
		t.Errorf("servers %v %v", all, err)
	}
}

// failing answers the first n calls that fit.
func failing(n int, method, suffix string, do func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) || n == 0 {
			return false
		}
		n--
		do(w)
		return true
	}
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// listening hears what is waited for.
type listening struct {
	mu   sync.Mutex
	said []string
}

func (l *listening) ctx(t *testing.T) context.Context {
	return provider.WithWaiting(t.Context(), func(text string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.said = append(l.said, text)
	})
}

func (l *listening) heard(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.said, "\n"), what)
}

func TestReadsAreRetriedAloud(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(http.ResponseWriter)
		says string
	}{
		"429":        {func(w http.ResponseWriter) { newError(w, 429, "Client::TooManyRequests", "slow down") }, "rate limit"},
		"500":        {status(500), "HTTP 500"},
		"502":        {status(502), "HTTP 502"},
		"503":        {status(503), "HTTP 503"},
		"504":        {status(504), "HTTP 504"},
		"conflict":   {func(w http.ResponseWriter) { newError(w, 409, "Client::Conflict", "a task runs") }, "a task runs"},
		"cut":        {cut, "was cut"},
		"hangs":      {func(w http.ResponseWriter) { <-time.After(80 * time.Millisecond) }, "does not answer"},
		"cut inside": {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); fmt.Fprint(w, "{") }, "was cut"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.before = failing(2, "GET", service, c.do)
			d := f.driver(t, func(o *ovh.Options) { o.CallTimeout = 60 * time.Millisecond })
			var l listening
			if _, ok, err := d.Describe(l.ctx(t), "demo", "gra-1"); !ok || err != nil {
				t.Fatalf("describe: %t %v", ok, err)
			}
			if !l.heard(c.says) {
				t.Errorf("said %q, want %q", l.said, c.says)
			}
		})
	}
}

func TestRetriesEndWithTheBudget(t *testing.T) {
	for code, kind := range map[int]error{500: provider.ErrBudget, 429: provider.ErrRateLimited} {
		f := newFake(t)
		f.before = failing(-1, "GET", service, status(code))
		d := f.driver(t, func(o *ovh.Options) { o.Budget = 20 * time.Millisecond })
		if _, _, err := d.Describe(t.Context(), "demo", "gra-1"); !errors.Is(err, kind) || !strings.Contains(err.Error(), "tries") {
			t.Errorf("%d: error %v, want %v", code, err, kind)
		}
	}
}

func TestRefusedCallsAreNotRepeated(t *testing.T) {
	for code, says := range map[string]string{
		"INVALID_CREDENTIAL": "make a new one",
		"NOT_GRANTED_CALL":   "lacks the right GET /dedicated/server/*",
		"INVALID_KEY":        "another region",
		"FORBIDDEN":          "OVH_CONSUMER_KEY",
	} {
		t.Run(code, func(t *testing.T) {
			f := newFake(t)
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/1.0/auth/time" {
					return false
				}
				oldError(w, http.StatusForbidden, code)
				return true
			}
			_, _, err := f.driver(t).Describe(t.Context(), "demo", "gra-1")
			if !errors.Is(err, provider.ErrUnauthorized) || !strings.Contains(err.Error(), says) {
				t.Errorf("error %v, want %q", err, says)
			}
			if n := f.count("GET", service); n != 1 {
				t.Errorf("%d calls, want 1", n)
			}
			for _, secret := range []string{appSecret, consumerKey} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a key: %v", err)
				}
			}
		})
	}
}

func TestClockIsAskedForOnceAndAgainWhenItDrifts(t *testing.T) {
	f := newFake(t)
	f.skew = -3 * time.Hour
	d := f.driver(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, ok, err := d.Describe(t.Context(), "demo", "gra-1"); !ok || err != nil {
				t.Errorf("describe: %t %v", ok, err)
			}
		})
	}
	wg.Wait()
	if n := f.count("GET", "/auth/time"); n != 1 {
		t.Errorf("the time was asked for %d times, want once", n)
	}
	f.edit(func(*fakeServer) { f.skew = 2 * time.Hour })
	for range 3 {
		if _, ok, err := d.Describe(t.Context(), "demo", "gra-1"); !ok || err != nil {
			t.Fatalf("describe after the clock moved: %t %v", ok, err)
		}
	}
	if n := f.count("GET", "/auth/time"); n != 2 {
		t.Errorf("the time was asked for %d times, want twice", n)
	}
}

func TestAWrongSecretStops(t *testing.T) {
	f := newFake(t)
	d := f.driver(t, func(o *ovh.Options) { o.ApplicationSecret = inventory.SecretText("wrong") })
	_, _, err := d.Describe(t.Context(), "demo", "gra-1")
	if !errors.Is(err, provider.ErrUnauthorized) || !strings.Contains(err.Error(), "application secret") {
		t.Errorf("error %v", err)
	}
	if n := f.count("GET", service); n != 1 {
		t.Errorf("%d calls, want 1: the time had just been asked for", n)
	}
}

// A client that goroutines share races; this test means something under -race only.
func TestManyGoroutinesShareADriver(t *testing.T) {
	f := newFake(t)
	d := f.driver(t, func(o *ovh.Options) { o.Log = slog.New(slog.DiscardHandler) })
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			var err error
			switch i % 4 {
			case 0:
				_, err = d.Servers(t.Context(), "demo")
			case 1:
				_, err = d.Activity(t.Context(), service, time.Now().Add(-time.Hour))
			case 2:
				err = d.Monitor(t.Context(), service, i%8 == 2)
			case 3:
				_, err = d.Ensure(t.Context(), provider.Wanted{Node: "gra-1", Server: service})
			}
			if err != nil && !errors.Is(err, provider.ErrActionFailed) { // two set what the other sets back
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestARedirectIsNotFollowed(t *testing.T) {
	f := newFake(t)
	f.before = failing(-1, "GET", service, func(w http.ResponseWriter) {
		w.Header().Set("Location", f.URL+"/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	if _, _, err := f.driver(t).Describe(t.Context(), "demo", "gra-1"); err == nil || f.count("GET", "/elsewhere") > 0 {
		t.Errorf("error %v, and %d calls went elsewhere", err, f.count("GET", "/elsewhere"))
	}
}

// A gateway's page is not OVH saying that a server is gone: the call is repeated, and in the end it is an outage.
func TestForeign404(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		d, err := ovh.New(ovh.Options{ApplicationKey: inventory.SecretText(appKey), ApplicationSecret: inventory.SecretText(appSecret),
			ConsumerKey: inventory.SecretText(consumerKey), Servers: map[string]string{"gra-1": service},
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/auth/time") {
					return answer(200, "1457018875"), nil
				}
				calls++
				return answer(404, "<html>no such host here</html>"), nil
			})})
		if err != nil {
			t.Fatal(err)
		}
		_, ok, err := d.Describe(t.Context(), "demo", "gra-1")
		if ok || err == nil || errors.Is(err, provider.ErrNotFound) || calls < 2 {
			t.Errorf("found %t after %d calls: %v", ok, calls, err)
		}
	})
}
