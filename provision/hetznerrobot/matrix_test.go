package hetznerrobot

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/provision/provider"
)

// act is one thing that the driver is asked to do, and what has to hold when it says that it did.
type act struct {
	do   func(w world, t *testing.T) error
	done func(w world) string // "" when it holds
}

func acts() map[string]act {
	addr := netip.MustParseAddr("192.0.2.7")
	return map[string]act{
		"servers": {do: func(w world, _ *testing.T) error { _, err := w.d.Servers(w.ctx, "demo"); return err }},
		"describe": {do: func(w world, _ *testing.T) error {
			_, _, err := w.d.Describe(w.ctx, "demo", "fsn-1")
			return err
		}},
		"ensure": {do: func(w world, _ *testing.T) error {
			_, err := w.d.Ensure(w.ctx, provider.Wanted{Fleet: "demo", Node: "fsn-1", Server: "321"})
			return err
		}, done: func(w world) string {
			if w.boxes[321].name != "demo-fsn-1" {
				return "not named"
			}
			return ""
		}},
		"enter rescue": {do: enterRescue},
		"enter rescue the harder way": {do: func(w world, t *testing.T) error {
			w.boxes[321].lose = map[string]int{"sw": 1}
			w.d.opts.Poll = 20 * time.Second // fewer looks, fewer cases
			return enterRescue(w, t)
		}},
		"boot disk": {do: func(w world, _ *testing.T) error {
			w.boxes[321].armed = "linux"
			return w.d.BootDisk(w.ctx, "321", provider.Restart{})
		}, done: func(w world) string {
			if w.boxes[321].armed != "" || w.boxes[321].next != nil {
				return "rescue is still armed"
			}
			return ""
		}},
		"reset": {do: func(w world, _ *testing.T) error { return w.d.Reset(w.ctx, "321", provider.Restart{Try: 1}) }},
		"reverse": {do: func(w world, _ *testing.T) error { return w.d.SetReverse(w.ctx, "321", addr, "a.example") },
			done: func(w world) string {
				if w.rdns[addr.String()] != "a.example" {
					return "not set"
				}
				return ""
			}},
		"activity": {do: func(w world, _ *testing.T) error {
			w.boxes[321].armed = "linux"
			list, err := w.d.Activity(w.ctx, "321", time.Now())
			if err == nil && (len(list) != 1 || !list[0].Risky) {
				err = errors.New("what is armed was overlooked")
			}
			return err
		}},
		"release": {do: func(w world, _ *testing.T) error { _, err := w.d.Release(w.ctx, "321"); return err }},
		"order": {do: func(w world, t *testing.T) error {
			o := order(t)
			q, err := w.d.Preview(w.ctx, o)
			if err == nil {
				_, err = w.d.Place(w.ctx, o, q)
			}
			return err
		}, done: func(w world) string {
			if w.bought() != 1 {
				return "not ordered"
			}
			return ""
		}},
	}
}

// enterRescue fails the test when it says that rescue is up and the keys are those of another start.
func enterRescue(w world, t *testing.T) error {
	b := w.boxes[321]
	b.last = &started{at: time.Now().Add(-time.Hour), os: "linux", allowed: []string{mustMD5(fleetKey)}, hosts: []string{strings.Repeat("A", 43)}}
	r, err := w.d.EnterRescue(w.ctx, "321", restart())
	if err == nil {
		time.Sleep(10 * time.Minute) // on the test's own clock: whatever was under way has started
		w.mu.Lock()
		defer w.mu.Unlock()
		w.settle(b)
		w.sure(t, r, err)
	}
	return err
}

var wrongs = map[string]fault{
	"fails":                  {status: 500, code: "INTERNAL_ERROR"},
	"fails, did it":          {status: 500, code: "INTERNAL_ERROR", after: true},
	"bad gateway":            {status: 502},
	"bad gateway, did it":    {status: 502, after: true},
	"unavailable":            {status: 503},
	"hangs":                  {hang: true},
	"hangs, did it":          {hang: true, after: true},
	"cut":                    {cut: io.ErrUnexpectedEOF},
	"cut, did it":            {cut: io.ErrUnexpectedEOF, after: true},
	"answers {}":             {body: "{}"},
	"answers {}, did it":     {body: "{}", after: true},
	"answers of another":     {body: `{"rescue":{"server_number":9,"os":"linux"},"server":{"server_number":9},"reset":{"server_number":9,"type":["hw"]},"boot":{"rescue":{"server_number":9}},"rdns":{"ip":"192.0.2.8"},"product":{"id":"EX9"},"transaction":{"id":"B9","product":{"id":"EX9"}}}`},
	"answers nonsense":       {body: "<html>"},
	"limit":                  {status: 403, code: "RATE_LIMIT_EXCEEDED", extra: map[string]any{"max_request": 500, "interval": 600}},
	"login refused":          {status: 401, code: "UNAUTHORIZED"},
	"not found":              {status: 404, code: "SERVER_NOT_FOUND"},
	"activation failed":      {status: 500, code: "BOOT_ACTIVATION_FAILED"},
	"conflict":               {status: 409, code: "CONFLICT"},
	"another port or nobody": {status: 404},
}

// TestEveryCallGoesWrong breaks every call of every act in every way, once and from there on: each ends in time, done or
// with a reason, and nothing is ordered twice.
func TestEveryCallGoesWrong(t *testing.T) {
	cases, did := 0, 0
	for name, a := range acts() {
		var calls []int
		in(t, func(t *testing.T, w world) {
			if err := a.do(w, t); err != nil {
				t.Fatalf("%s with nothing wrong: %v", name, err)
			}
			calls = worthBreaking(w.calls)
		})
		for what, bad := range wrongs {
			for _, forever := range []bool{false, true} {
				for _, at := range calls {
					cases++
					if goesWrong(t, name, what, a, at, forever, bad) {
						did++
					}
				}
			}
		}
	}
	t.Logf("%d cases: %d done all the same, the others ended with a reason", cases, did)
}

// worthBreaking leaves out what repeats: of equal calls the first two and the last are broken.
func worthBreaking(calls []string) []int {
	var out []int
	seen := map[string]int{}
	for i, c := range calls {
		if seen[c]++; seen[c] <= 2 || !slices.Contains(calls[i+1:], c) {
			out = append(out, i)
		}
	}
	return out
}

func goesWrong(t *testing.T, name, what string, a act, at int, forever bool, bad fault) (ok bool) {
	in(t, func(t *testing.T, w world) {
		n := -1
		w.fault = func(string) *fault {
			if n++; n == at || forever && n > at {
				return &bad
			}
			return nil
		}
		start := time.Now()
		err := a.do(w, t)
		where := []any{name, what, at, forever}
		var ours *provider.Error
		if err != nil && !errors.As(err, &ours) {
			t.Errorf("%v: error %v is not a provider.Error", where, err)
		}
		if err == nil && a.done != nil && a.done(w) != "" {
			t.Errorf("%v: done, but %s", where, a.done(w))
		}
		if spent := time.Since(start); spent > time.Hour {
			t.Errorf("%v: ended after %s", where, spent)
		}
		if w.bought() > 1 {
			t.Errorf("%v: %d orders", where, w.bought())
		}
		if what == "login refused" && (err == nil || w.count("") != at+1) {
			t.Errorf("%v: %d calls, %v", where, w.count(""), err)
		}
		ok = err == nil
	})
	return ok
}
