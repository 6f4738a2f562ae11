package ovh

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

// Whatever an API, or who stands in for it, answers as an error: it is fit for a terminal, bounded, and no success.
func FuzzParseError(f *testing.F) {
	for _, s := range []string{`{"class":"Client::NotFound","message":"m","details":{"a":1}}`,
		`{"errorCode":"NOT_GRANTED_CALL","httpCode":"403 Forbidden","message":"This call has not been granted"}`,
		"<html>\x1b[2J</html>", `{"message":["a"]}`, "\xff\xfe", ""} {
		f.Add(403, []byte(s), "EU.ext\x07", "7")
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, query, after string) {
		h := http.Header{}
		h.Set("X-Ovh-QueryID", query)
		h.Set("Retry-After", after)
		e := parseError(status, h, body)
		text := e.Error()
		if len([]rune(text)) > 600 || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("error %q", text)
		}
		if e.after < 0 || e.after > maxPause {
			t.Errorf("pause %s", e.after)
		}
		e.judge()
		e.rightHint(request{method: "GET", path: "/a?b"})
	})
}

func TestRule(t *testing.T) {
	for path, want := range map[string]string{
		"/dedicated/server/ns1.ip-192-0-2.eu":                       "/dedicated/server/*",
		"/dedicated/server/ns1.ip-192-0-2.eu/boot/46371":            "/dedicated/server/*/boot/*",
		"/ip/192.0.2.1%2F32/reverse":                                "/ip/*/reverse",
		"/me/order/12/status":                                       "/me/order/*/status",
		"/order/cart/1b4e28ba-2fa1-11d2-883f-0016d3cca427/checkout": "/order/cart/*/checkout",
	} {
		if got := rule(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestWithin(t *testing.T) {
	for word, want := range map[string]time.Duration{"1H-low": time.Hour, "72H": 72 * time.Hour, "2160H": 2160 * time.Hour,
		"comingSoon": 0, "unavailable": 0, "unknown": 0, "-3H": 0, "99999999H": 0, "": 0, "H": 0} {
		if got := within(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}
