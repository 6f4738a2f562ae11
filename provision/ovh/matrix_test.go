package ovh_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

// fault is what may happen to one call; the call comes again without it.
type fault struct {
	before func(http.ResponseWriter) // instead of the call
	after  bool                      // the call is done and its reply lost
}

var faults = map[string]fault{
	"500":       {before: status(500)},
	"502":       {before: status(502)},
	"429":       {before: func(w http.ResponseWriter) { newError(w, 429, "Client::TooManyRequests", "slow") }},
	"409":       {before: func(w http.ResponseWriter) { newError(w, 409, "Client::Conflict", "busy") }},
	"cut":       {before: cut},
	"time":      {before: func(w http.ResponseWriter) { oldError(w, 400, "QUERY_TIME_OUT") }},
	"late":      {before: func(w http.ResponseWriter) { <-time.After(150 * time.Millisecond) }},
	"half":      {before: func(w http.ResponseWriter) { w.Header().Set("Content-Length", "99"); w.Write([]byte("{")) }},
	"lost":      {after: true},
	"lies html": {before: func(w http.ResponseWriter) { w.WriteHeader(503); w.Write([]byte("<html>busy</html>")) }},
}

// Every call of a whole round through rescue and back, with every fault: it converges, with one reboot each way.
func TestEveryCallMayFailOnce(t *testing.T) {
	f := newFake(t)
	round(t, f, fault{}, -1)
	calls := f.calls
	for name, fault := range faults {
		for n, call := range calls {
			t.Run(fmt.Sprintf("%s of call %d", name, n+1), func(t *testing.T) {
				t.Parallel()
				if name == "time" && strings.HasSuffix(call, "/auth/time") {
					t.Skip("the one call without a signature")
				}
				f := newFake(t)
				f.spec = nil // the run without faults is held against it
				round(t, f, fault, n)
			})
		}
	}
	t.Logf("%d runs: %d calls, each with %d faults", len(calls)*len(faults), len(calls), len(faults))
}

func round(t *testing.T, f *fake, fault fault, nth int) {
	seen := -1
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if seen++; seen != nth || fault.before == nil {
			return false
		}
		fault.before(w)
		return true
	}
	f.after = func(*http.Request) bool { return fault.after && seen == nth }
	d := f.driver(t, func(o *ovh.Options) { o.CallTimeout = 100 * time.Millisecond })
	s, err := d.Ensure(t.Context(), provider.Wanted{Fleet: "demo", Node: "gra-1", Server: service})
	if err != nil {
		t.Fatalf("ensure: %v", err)
	}
	if _, err := d.EnterRescue(t.Context(), s.ID, restart(0)); err != nil {
		t.Fatalf("enter rescue: %v", err)
	}
	if f.field("bootId") != float64(rescueID) || f.field("monitoring") != false {
		t.Errorf("in rescue: bootId %v, monitoring %v", f.field("bootId"), f.field("monitoring"))
	}
	if err := d.BootDisk(t.Context(), s.ID, restart(0)); err != nil {
		t.Fatalf("boot disk: %v", err)
	}
	if _, err := d.Activity(t.Context(), s.ID, time.Now().Add(-time.Hour)); err != nil {
		t.Fatalf("activity: %v", err)
	}
	if f.field("bootId") != float64(diskID) || f.field("rescueSshKey") != nil {
		t.Errorf("at the end: bootId %v, key %v", f.field("bootId"), f.field("rescueSshKey"))
	}
	reboots := 0
	f.edit(func(s *fakeServer) { reboots = len(s.tasks) })
	if reboots != 2 {
		t.Errorf("%d reboots were begun, want 2", reboots)
	}
}
