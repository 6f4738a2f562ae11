package ovh_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

func restart(try int) provider.Restart {
	return provider.Restart{Key: provider.SSHKey{Name: "fleet", Public: publicKey}, Try: try}
}

func TestEnterRescue(t *testing.T) {
	f := newFake(t)
	d := f.driver(t)
	r, err := d.EnterRescue(t.Context(), service, restart(0))
	if err != nil || r.Origin != provider.FirstUse || len(r.Fingerprints) != 0 {
		t.Fatalf("rescue %+v %v", r, err)
	}
	var sent map[string]any
	json.Unmarshal([]byte(f.body("PUT", service)), &sent)
	want := map[string]any{"bootId": float64(rescueID), "rescueSshKey": publicKey, "monitoring": false}
	if !maps.Equal(sent, want) {
		t.Errorf("put %v, want %v", sent, want)
	}
	if n := f.count("POST", "/reboot"); n != 1 {
		t.Errorf("%d reboots, want 1", n)
	}
	if err := d.BootDisk(t.Context(), service, restart(0)); err != nil {
		t.Fatal(err)
	}
	if f.field("bootId") != float64(diskID) || f.field("rescueSshKey") != nil || f.field("bootScript") != nil {
		t.Errorf("after BootDisk: bootId %v, key %v", f.field("bootId"), f.field("rescueSshKey"))
	}
	if f.field("monitoring") != false {
		t.Error("monitoring is on while the disk is locked")
	}
	for range 2 {
		if err := d.Monitor(t.Context(), service, true); err != nil {
			t.Fatal(err)
		}
	}
	if f.field("monitoring") != true || f.count("PUT", service) != 3 {
		t.Errorf("monitoring %v after %d puts", f.field("monitoring"), f.count("PUT", service))
	}
}

// Ids of boots differ: this region's rescue is not that one's.
func TestRescueIsLookedUpOnTheServersOwnList(t *testing.T) {
	f := newFake(t)
	f.edit(func(s *fakeServer) {
		delete(s.boots, rescueID)
		s.boots[52000] = object{"bootId": 52000, "bootType": "rescue", "kernel": "rescue-customer", "description": "us"}
	})
	if _, err := f.driver(t).EnterRescue(t.Context(), service, restart(0)); err != nil || f.field("bootId") != float64(52000) {
		t.Errorf("bootId %v %v", f.field("bootId"), err)
	}
	f.edit(func(s *fakeServer) { delete(s.boots, 52000) })
	_, err := f.driver(t).EnterRescue(t.Context(), service, restart(0))
	if !errors.Is(err, provider.ErrNoRescue) || !strings.Contains(err.Error(), "rescue64-pro") {
		t.Errorf("without a customer rescue: %v", err)
	}
}

func TestTheDiskThatWasUsedIsUsedAgain(t *testing.T) {
	f := newFake(t)
	f.edit(func(s *fakeServer) {
		s.boots[3] = object{"bootId": 3, "bootType": "harddisk", "kernel": "hd2", "description": "second"}
		s.fields["bootId"] = 3
	})
	d := f.driver(t)
	if _, err := d.EnterRescue(t.Context(), service, restart(0)); err != nil {
		t.Fatal(err)
	}
	if err := d.BootDisk(t.Context(), service, restart(0)); err != nil || f.field("bootId") != float64(3) {
		t.Errorf("bootId %v %v", f.field("bootId"), err)
	}
}

func TestLeftOversArePutRight(t *testing.T) {
	for name, act := range map[string]func(*ovh.Driver, context.Context) error{
		"boot disk": func(d *ovh.Driver, ctx context.Context) error { return d.BootDisk(ctx, service, restart(1)) },
		"reset":     func(d *ovh.Driver, ctx context.Context) error { return d.Reset(ctx, service, restart(0)) },
		"release":   func(d *ovh.Driver, ctx context.Context) error { _, err := d.Release(ctx, service); return err },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.edit(func(s *fakeServer) {
				s.fields["bootId"], s.fields["rescueSshKey"], s.fields["bootScript"] = ipxeID, "ssh-rsa AAAA other", "#!ipxe\nshell"
				s.fields["rescueMail"] = "ops@example.org"
			})
			d := f.driver(t, func(o *ovh.Options) { o.RescueMail = "ops@example.org" })
			if err := act(d, t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, k := range []string{"rescueSshKey", "bootScript", "rescueMail"} {
				if f.field(k) != nil {
					t.Errorf("%s is left: %v", k, f.field(k))
				}
			}
			if f.field("bootId") != float64(diskID) {
				t.Errorf("bootId %v", f.field("bootId"))
			}
			if want := map[bool]int{true: 0, false: 1}[name == "release"]; f.count("POST", "/reboot") != want {
				t.Errorf("%d reboots, want %d", f.count("POST", "/reboot"), want)
			}
			if f.count("POST", "/terminate") > 0 {
				t.Error("the contract was touched")
			}
		})
	}
}

func TestTheSystemIsAskedFirst(t *testing.T) {
	for name, c := range map[string]struct {
		answer  error
		try     int
		off     bool
		asked   int
		reboots int
	}{
		"it obeys":      {asked: 1},
		"it refuses":    {answer: errors.New("no route to host"), asked: 1, reboots: 1},
		"it did before": {try: 1, reboots: 1},
		"it is off":     {off: true, reboots: 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if c.off {
				f.edit(func(s *fakeServer) { s.fields["powerState"] = "poweroff" })
			}
			asked := 0
			r := restart(c.try)
			r.Ask = func(context.Context) error {
				if asked++; f.field("bootId") != float64(rescueID) {
					t.Error("it is asked before rescue is set")
				}
				return c.answer
			}
			if _, err := f.driver(t).EnterRescue(t.Context(), service, r); err != nil {
				t.Fatal(err)
			}
			if asked != c.asked || f.count("POST", "/reboot") != c.reboots {
				t.Errorf("asked %d times and %d reboots, want %d and %d", asked, f.count("POST", "/reboot"), c.asked, c.reboots)
			}
		})
	}
}

func TestSettingsThatDoNotStick(t *testing.T) {
	f := newFake(t)
	f.before = failing(-1, "PUT", service, func(w http.ResponseWriter) { reply(w, nil) })
	_, err := f.driver(t).EnterRescue(t.Context(), service, restart(0))
	if !errors.Is(err, provider.ErrActionFailed) || f.count("POST", "/reboot") != 0 {
		t.Errorf("error %v, %d reboots: want none into the wrong system", err, f.count("POST", "/reboot"))
	}
}

func TestALostPutIsRepeated(t *testing.T) {
	f := newFake(t)
	lost := 2
	f.after = func(r *http.Request) bool { lost--; return r.Method == "PUT" && lost >= 0 }
	if _, err := f.driver(t).EnterRescue(t.Context(), service, restart(0)); err != nil || f.field("bootId") != float64(rescueID) {
		t.Errorf("bootId %v %v", f.field("bootId"), err)
	}
}

// once swallows the reply of the first call that fits.
func once(method, suffix string) func(*http.Request) bool {
	done := false
	return func(r *http.Request) bool {
		hit := !done && r.Method == method && strings.HasSuffix(r.URL.Path, suffix)
		done = done || hit
		return hit
	}
}

func TestARebootWhoseReplyIsLostIsLookedFor(t *testing.T) {
	f := newFake(t)
	f.edit(func(s *fakeServer) { // old ones are not taken for it
		for range 3 {
			f.task(s, "hardReboot", "done")["startDate"] = time.Now().Add(-48 * time.Hour).Format(time.RFC3339)
		}
	})
	f.after = once("POST", "/reboot")
	var l listening
	if _, err := f.driver(t).EnterRescue(l.ctx(t), service, restart(0)); err != nil {
		t.Fatal(err)
	}
	if n := f.count("POST", "/reboot"); n != 1 || !l.heard("looking whether it was taken") {
		t.Errorf("%d reboots, said %q: want one", n, l.said)
	}
}

func TestARebootThatNeverArrivedIsRepeated(t *testing.T) {
	f := newFake(t)
	f.before = failing(1, "POST", "/reboot", cut)
	if err := f.driver(t).Reset(t.Context(), service, restart(0)); err != nil {
		t.Fatal(err)
	}
	if n := f.count("POST", "/reboot"); n != 2 {
		t.Errorf("%d reboots sent, want 2", n)
	}
	f.before = failing(-1, "POST", "/reboot", status(500))
	if err := f.driver(t).Reset(t.Context(), service, restart(0)); err == nil || f.count("POST", "/reboot") != 5 {
		t.Errorf("error %v after %d more", err, f.count("POST", "/reboot")-2)
	}
}

// A run that was killed after the POST comes again: the reboot under way is its own.
func TestARebootUnderWayIsJoined(t *testing.T) {
	for name, c := range map[string]struct {
		boot any
		want int
	}{
		"with the wanted settings all along": {diskID, 0},
		"begun under other settings":         {rescueID, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.edit(func(s *fakeServer) {
				s.fields["bootId"] = c.boot
				f.task(s, "hardReboot", "doing")
			})
			if err := f.driver(t).BootDisk(t.Context(), service, restart(0)); err != nil {
				t.Fatal(err)
			}
			if n := f.count("POST", "/reboot"); n != c.want {
				t.Errorf("%d reboots, want %d", n, c.want)
			}
		})
	}
}

func TestRelease(t *testing.T) {
	f := newFake(t)
	steps, err := f.driver(t).Release(t.Context(), service)
	if err != nil || len(steps) < 3 || !slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, "mails a token") }) {
		t.Errorf("steps %q %v", steps, err)
	}
	if f.count("PUT", service) != 0 {
		t.Error("nothing was left over, and yet written")
	}
	for code, says := range map[int]string{404: "does not know", 460: "expired"} {
		f.before = failing(-1, "GET", service, func(w http.ResponseWriter) { newError(w, code, "Client::X", "m") })
		if steps, err := f.driver(t).Release(t.Context(), service); err != nil || len(steps) != 1 || !strings.Contains(steps[0], says) {
			t.Errorf("%d: steps %q %v", code, steps, err)
		}
	}
}
