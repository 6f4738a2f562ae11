package robot_test

import (
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/robot"
	"popfleet/lab/scripted"
)

func withButton(o *robot.Options) {
	o.Machines[0].Resets = []string{"sw", "hw", "man", "power", "power_long"}
}

func (f *fixture) reset(kind string) {
	f.t.Helper()
	f.ok("POST", "/reset/322", params{"type": kind})
}

// boots counts the boots that machine 322 has begun.
func (f *fixture) boots() int {
	f.t.Helper()
	m, _ := f.backend.Labelled("fsn-2")
	return len(m.Ledger().Boots())
}

func TestResets(t *testing.T) {
	f := start(t, nil, withButton)
	up := func() bool { return f.stage(322) == "factory" }
	status := func(want string) {
		t.Helper()
		if got := f.ok("GET", "/reset/322", nil).at("reset", "operating_status"); got != want {
			t.Errorf("operating status %v, want %s", got, want)
		}
	}
	f.eventually("the first boot", up)
	for i, kind := range []string{"sw", "hw"} {
		f.reset(kind)
		f.eventually(kind, func() bool { return f.boots() == i+2 && up() })
	}
	f.reset("power")
	f.eventually("off", func() bool { return f.stage(322) == "off" })
	status("stopped")
	f.reset("sw") // nothing listens
	f.reset("hw") // the button of a machine that is off
	if s := f.stage(322); s != "off" {
		t.Errorf("sw and hw started a machine that was off: %s", s)
	}
	f.reset("power")
	f.eventually("on", up)
	status("running")
	f.reset("power_long")
	if s := f.stage(322); s != "off" {
		t.Errorf("after the plug was pulled: %s", s)
	}
	f.reset("man")
	f.refused(409, "RESET_MANUAL_ACTIVE", "POST", "/reset/322", params{"type": "power"})
	f.refused(409, "RESET_MANUAL_ACTIVE", "POST", "/reset/322", params{"type": "man"})
	if s := f.stage(322); s != "off" {
		t.Errorf("a manual reset happened by itself: %s", s)
	}
	if done, err := f.robot.FinishManual(322); err != nil || !done {
		t.Fatal(done, err)
	}
	f.eventually("the technician", up)
	f.reset("hw")
}

// A system that does not listen to Ctrl-Alt-Del goes on.
func TestSoftwareResetMayBeIgnored(t *testing.T) {
	f := start(t, nil, nil)
	f.eventually("the first boot", func() bool { return f.stage(322) == "factory" })
	f.faults.MustAdd(faults.Fault{Kind: faults.BootHangs, Machine: "322", Times: 1})
	f.reset("hw")
	f.eventually("a boot that hangs", func() bool { return f.stage(322) == "dead" })
	f.reset("sw")
	if s, n := f.stage(322), f.boots(); s != "dead" || n != 2 {
		t.Errorf("stage %s after %d boots", s, n)
	}
}

func TestWakeOnLAN(t *testing.T) {
	f := start(t, nil, func(o *robot.Options) { o.Machines[0].WOL, o.Machines[0].Off = true, true })
	if s := f.stage(322); s != "off" {
		t.Fatal(s)
	}
	f.ok("POST", "/wol/322", params{})
	f.eventually("awake", func() bool { return f.stage(322) == "factory" })
}

func TestResetFaults(t *testing.T) {
	f := start(t, nil, nil)
	f.eventually("the first boot", func() bool { return f.stage(322) == "factory" })
	f.faults.MustAdd(faults.Fault{Kind: faults.ResetIgnored, Machine: "322", Times: 1})
	f.reset("hw")
	if n := f.boots(); n != 1 {
		t.Errorf("an ignored reset made boot %d", n)
	}
	gone := f.faults.MustAdd(faults.Fault{Kind: faults.ResetTypeAbsent, Machine: "322"})
	f.refused(400, "INVALID_INPUT", "POST", "/reset/322", params{"type": "hw"})
	if l := f.ok("GET", "/reset/322", nil).list("reset", "type"); len(l) != 2 {
		t.Errorf("kinds of reset: %v", l)
	}
	f.faults.Clear(gone.ID)
	f.faults.MustAdd(faults.Fault{Kind: faults.ActionError, Machine: "322", Call: "reset_server", Times: 1})
	f.refused(500, "RESET_FAILED", "POST", "/reset/322", params{"type": "hw"})
	if n := f.boots(); n != 1 {
		t.Errorf("a failed reset made boot %d", n)
	}
}

func TestRestartFindsItsServers(t *testing.T) {
	path := t.TempDir() + "/state.json"
	set := &faults.Set{}
	backend := scripted.New(t.Context(), scripted.Options{Faults: set})
	t.Cleanup(backend.Close)
	lab := func(deliver time.Duration) *fixture {
		f := start(t, nil, func(o *robot.Options) {
			stocked(o)
			o.StatePath, o.Backend, o.Faults = path, backend, set
			o.Delay = func(what string) time.Duration { return map[string]time.Duration{"deliver-market": deliver}[what] }
		})
		f.backend, f.faults = backend, set
		return f
	}
	f := lab(200 * time.Millisecond)
	print := f.addKey()
	f.ok("POST", "/server/322", params{"server_name": "demo-fsn-2"})
	f.ok("PUT", "/rdns/198.19.0.2", params{"ptr": "a.demo.test"})
	f.enterRescue(322)
	at, _, _ := f.last("322")
	id := f.ok("POST", "/order/server_market/transaction", params{"product_id": "283693", "authorized_key[]": print}).at("transaction", "id").(string)
	f.robot.Close()

	f = lab(0)
	if got, keys, ok := f.last("322"); !ok || got != at || len(keys) != 3 {
		t.Errorf("after a restart: %q, was %q, %d keys", got, at, len(keys))
	}
	if f.ok("GET", "/server/322", nil).at("server", "server_name") != "demo-fsn-2" || f.stage(322) != "rescue" {
		t.Error("the server lost its name or its boot")
	}
	f.ok("GET", "/key/"+print, nil)
	f.ok("GET", "/rdns/198.19.0.2", nil)
	f.eventually("the order of the lab before", func() bool {
		return f.ok("GET", "/order/server_market/transaction/"+id, nil).at("transaction", "status") == "ready"
	})
	f.robot.Close()
	f = lab(0)
	if n := len(f.robot.Servers()); n != 3 {
		t.Errorf("%d servers after another restart", n)
	}
	must(t, f.robot.Delete(t.Context()))
	if n := len(f.robot.Servers()); n != 0 {
		t.Errorf("%d servers after delete", n)
	}
}
