package api

import "testing"

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
		if got := Sign(secret, consumer, c.method, "https://eu.api.ovh.com/1.0/auth", []byte(c.body), at); got != c.want {
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
