package robot_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/robot"
)

// Three wrong passwords block the source; the right one is of no use then.
func TestLockOut(t *testing.T) {
	f := start(t, nil, func(o *robot.Options) { o.LockOut = time.Hour })
	for range 3 {
		r := f.request("GET", "/server", nil)
		r.SetBasicAuth("#ws+popfleet", "wrong")
		a, err := f.try(r)
		must(t, err)
		if a.status != 401 || a.code() != "UNAUTHORIZED" {
			t.Errorf("wrong password: %d %s", a.status, a.raw)
		}
	}
	f.refused(403, "FORBIDDEN", "GET", "/server", nil)
	f.robot.Unblock()
	f.ok("GET", "/server", nil)
}

// A rate limit that a fault makes tells the provider's interval, or the one that the fault says.
func TestRateLimitFault(t *testing.T) {
	f := start(t, nil, nil)
	for _, c := range []struct {
		last time.Duration
		want float64
	}{{0, 3600}, {50 * time.Millisecond, 1}, {5 * time.Second, 5}} {
		f.faults.MustAdd(faults.Fault{Kind: faults.RateLimited, Call: "list_servers", Times: 1, For: faults.Duration(c.last)})
		if a := f.refused(403, "RATE_LIMIT_EXCEEDED", "GET", "/server", nil); a.at("error", "interval") != c.want {
			t.Errorf("for %v: %s", c.last, a.raw)
		}
	}
}

// A wrong password is told before anything else, and costs nothing of the request limit.
func TestPasswordComesFirst(t *testing.T) {
	f := start(t, nil, nil)
	r := f.request("GET", "/no/such/call", nil)
	r.Header.Del("Authorization")
	a, err := f.try(r)
	must(t, err)
	if a.status != 401 || len(f.robot.Spent()) != 0 {
		t.Errorf("%d, spent %v", a.status, f.robot.Spent())
	}
}

func TestLimits(t *testing.T) {
	f := start(t, nil, func(o *robot.Options) { o.RatePerHour = map[string]int{"reset_post": 2} })
	for range 2 {
		f.ok("POST", "/reset/322", params{"type": "hw"})
	}
	a := f.refused(403, "RATE_LIMIT_EXCEEDED", "POST", "/reset/323", params{"type": "hw"})
	if a.at("error", "max_request") != 2.0 || a.at("error", "interval") != 3600.0 || a.at("error", "status") != 403.0 {
		t.Errorf("limit: %s", a.raw)
	}
	f.ok("GET", "/reset/323", nil)
	if s := f.robot.Spent(); s["reset_post"] != 2 || s["reset"] != 1 {
		t.Errorf("spent %v", s)
	}
}

func TestAPIFaults(t *testing.T) {
	for _, c := range []struct {
		fault  faults.Fault
		status int
		code   string
	}{
		{faults.Fault{Kind: faults.Unauthorized}, 401, "UNAUTHORIZED"},
		{faults.Fault{Kind: faults.RateLimited}, 403, "RATE_LIMIT_EXCEEDED"},
		{faults.Fault{Kind: faults.LockOut}, 403, "FORBIDDEN"},
		{faults.Fault{Kind: faults.Busy}, 409, "CONFLICT"},
		{faults.Fault{Kind: faults.Conflict}, 409, "CONFLICT"},
		{faults.Fault{Kind: faults.ActionError}, 500, "BOOT_ACTIVATION_FAILED"},
		{faults.Fault{Kind: faults.BadGateway}, 502, ""},
		{faults.Fault{Kind: faults.Unavailable}, 503, ""},
		{faults.Fault{Kind: faults.GatewayTimeout}, 504, ""},
	} {
		t.Run(string(c.fault.Kind), func(t *testing.T) {
			f := start(t, nil, nil)
			c.fault.Machine, c.fault.Call, c.fault.Times = "322", "activate_rescue", 1
			f.faults.MustAdd(c.fault)
			f.ok("POST", "/boot/323/rescue", params{"os": "linux"}) // another machine
			f.refused(c.status, c.code, "POST", "/boot/322/rescue", params{"os": "linux"})
			f.robot.Unblock()
			if f.ok("GET", "/boot/322/rescue", nil).at("rescue", "active") != false {
				t.Error("a refused call acted")
			}
		})
	}
}

// Three rejections in a row block the source, though the password was right: who goes on after the first is shut out.
func TestUnauthorizedFaultCounts(t *testing.T) {
	f := start(t, nil, nil)
	f.faults.MustAdd(faults.Fault{Kind: faults.Unauthorized, Call: "list_servers", Times: 3})
	for range 3 {
		f.refused(401, "UNAUTHORIZED", "GET", "/server", nil)
	}
	f.refused(403, "FORBIDDEN", "GET", "/server", nil)
}

func TestReplyLostActs(t *testing.T) {
	f := start(t, nil, nil)
	f.faults.MustAdd(faults.Fault{Kind: faults.ReplyLost, Call: "POST /boot/{number}/rescue", Times: 1})
	if a, err := f.try(f.request("POST", "/boot/322/rescue", params{"os": "linux"})); err == nil {
		t.Fatalf("an answer came: %s", a.raw)
	}
	if f.ok("GET", "/boot/322/rescue", nil).at("rescue", "active") != true {
		t.Error("the call did not act")
	}
}

func TestHangAndSlow(t *testing.T) {
	f := start(t, nil, nil)
	f.faults.MustAdd(faults.Fault{Kind: faults.Hang, Call: "list_servers", Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.try(f.request("GET", "/server", nil).WithContext(ctx)); err == nil {
		t.Error("a hanging call answered")
	}
	f.faults.MustAdd(faults.Fault{Kind: faults.Slow, Call: "list_servers", Times: 1, For: faults.Duration(60 * time.Millisecond)})
	began := time.Now()
	f.ok("GET", "/server", nil)
	if d := time.Since(began); d < 60*time.Millisecond {
		t.Errorf("a slow call answered after %v", d)
	}
}

// A locked server is nowhere to be seen.
func TestInvisible(t *testing.T) {
	f := start(t, nil, nil)
	f.ok("PUT", "/rdns/198.19.0.2", params{"ptr": "a.demo.test"})
	f.faults.MustAdd(faults.Fault{Kind: faults.Invisible, Machine: "322"})
	for _, path := range []string{"/server/322", "/boot/322", "/boot/322/rescue/last", "/reset/322", "/ip/198.19.0.2", "/rdns/198.19.0.2"} {
		if a := f.call("GET", path, nil); a.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
	f.refused(404, "SERVER_NOT_FOUND", "POST", "/reset/322", params{"type": "hw"})
	for _, path := range []string{"/server", "/ip", "/subnet", "/reset"} {
		if n := len(f.ok("GET", path, nil).list()); n != 1 {
			t.Errorf("%s shows %d", path, n)
		}
	}
}
