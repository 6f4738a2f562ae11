package ovh_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"popfleet/provision/provider"
)

func TestActivity(t *testing.T) {
	f := newFake(t)
	f.skew = time.Hour // since is ours, dates are theirs
	since := time.Now().Add(-10 * time.Minute)
	f.edit(func(s *fakeServer) {
		at := func(o object, d time.Duration) { o["startDate"] = f.now().Add(d).Format(time.RFC3339) }
		for range 20 {
			old := f.task(s, "reinstallServer", "done")
			at(old, -time.Hour)
			old["doneDate"] = f.now().Add(-30 * time.Minute).Format(time.RFC3339)
		}
		at(f.task(s, "reinstallServer", "doing"), -2*time.Hour) // still at it
		at(f.task(s, "hardReboot", "done"), -5*time.Minute)
		at(f.task(s, "changePasswordBackupFTP", "done"), -4*time.Minute)
		at(f.task(s, "virtualMacAdd", "done"), -3*time.Minute)
		at(f.task(s, "requestAccessIPMI", "done"), -2*time.Minute)
		s.interventions[5] = object{"interventionId": 5, "date": f.now().Add(-time.Minute).Format(time.RFC3339), "type": "diskReplacement"}
		s.interventions[4] = object{"interventionId": 4, "date": f.now().Add(-48 * time.Hour).Format(time.RFC3339), "type": "old"}
		s.fields["state"], s.fields["bootId"] = "hacked", rescueID
		s.fields["bootScript"], s.fields["rescueSshKey"] = "#!ipxe", publicKey
	})
	got, err := f.driver(t).Activity(t.Context(), service, since)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		what  string
		risky bool
		state bool
	}{
		{"reinstallServer", true, false}, {"hardReboot", true, false}, {"changePasswordBackupFTP", false, false},
		{"virtualMacAdd", true, false}, {"requestAccessIPMI", true, false}, {"intervention diskReplacement", true, false},
		{"state=hacked", true, true}, {"bootId=rescue", true, true}, {"bootScript=set", true, true}, {"rescueSshKey=set", false, true},
	}
	if len(got) != len(want) {
		t.Fatalf("activity %+v", got)
	}
	for i, w := range want {
		if g := got[i]; g.What != w.what || g.Risky != w.risky || g.At.IsZero() != w.state || (g.Ref == "") != w.state {
			t.Errorf("%d: %+v, want %+v", i, g, w)
		}
	}
	if off := time.Until(got[1].At) + 5*time.Minute; off < -5*time.Second || off > 5*time.Second {
		t.Errorf("the reboot five minutes ago is said to be %s off on our clock", off)
	}
	if n := f.count("GET", "/task/101"); n != 0 {
		t.Error("the oldest task was read")
	}
}

func TestActivityOfAQuietServer(t *testing.T) {
	f := newFake(t)
	got, err := f.driver(t).Activity(t.Context(), service, time.Now().Add(-time.Hour))
	if err != nil || len(got) != 0 {
		t.Errorf("activity %+v %v", got, err)
	}
}

func TestATaskThatIsNotShownIsRisky(t *testing.T) {
	f := newFake(t)
	f.edit(func(s *fakeServer) {
		f.task(s, "testIPMIping", "done")
		f.task(s, "hardReboot", "init")
	})
	f.before = failing(-1, "GET", "/task/102", notFound)
	got, err := f.driver(t).Activity(t.Context(), service, time.Now().Add(-time.Hour))
	if err != nil || len(got) != 2 || got[1].Ref != "102" || !got[1].Risky {
		t.Errorf("activity %+v %v", got, err)
	}
}

func TestAFunctionThatNobodyKnowsIsRisky(t *testing.T) {
	f := newFake(t)
	f.spec = nil // which does not know it either
	f.edit(func(s *fakeServer) { f.task(s, "inventedTomorrow", "done") })
	got, err := f.driver(t).Activity(t.Context(), service, time.Now().Add(-time.Hour))
	if err != nil || len(got) != 1 || !got[0].Risky {
		t.Errorf("activity %+v %v", got, err)
	}
}

func TestAnUnknownBootIsRisky(t *testing.T) {
	for _, id := range []any{nil, 4711} {
		f := newFake(t)
		f.edit(func(s *fakeServer) { s.fields["bootId"] = id })
		got, err := f.driver(t).Activity(t.Context(), service, time.Now())
		if err != nil || len(got) != 1 || !got[0].Risky {
			t.Errorf("bootId %v: activity %+v %v", id, got, err)
		}
	}
}

func TestReverse(t *testing.T) {
	for _, text := range []string{"192.0.2.10", "2001:db8:7::1"} {
		t.Run(text, func(t *testing.T) {
			f := newFake(t)
			d, addr := f.driver(t), netip.MustParseAddr(text)
			read := func(want string) {
				t.Helper()
				if got, err := d.Reverse(t.Context(), service, addr); err != nil || got != want {
					t.Errorf("reverse %q %v, want %q", got, err, want)
				}
			}
			read("")
			for range 2 {
				if err := d.SetReverse(t.Context(), service, addr, "Gra-1.example.org"); err != nil {
					t.Fatal(err)
				}
			}
			if n := f.count("POST", "/reverse"); n != 1 {
				t.Errorf("%d posts, want 1", n)
			}
			read("Gra-1.example.org")
			err := d.SetReverse(t.Context(), service, addr, "nowhere.example.org")
			if err == nil || !strings.Contains(err.Error(), "has to resolve to "+text+" first") {
				t.Errorf("error %v", err)
			}
			for range 2 {
				if err := d.SetReverse(t.Context(), service, addr, ""); err != nil {
					t.Fatal(err)
				}
			}
			read("")
			f.edit(func(s *fakeServer) { s.reverses[text] = service + "." })
			read("")
		})
	}
}

func TestReverseOfAForeignAddress(t *testing.T) {
	f := newFake(t)
	err := f.driver(t).SetReverse(t.Context(), service, netip.MustParseAddr("2001:db8:8::1"), "a.example.org")
	if !errors.Is(err, provider.ErrNotFound) || f.count("POST", "/reverse") > 0 {
		t.Errorf("error %v", err)
	}
}

func TestALostReverseIsRepeated(t *testing.T) {
	f := newFake(t)
	f.after = once(http.MethodPost, "/reverse")
	err := f.driver(t).SetReverse(t.Context(), service, netip.MustParseAddr("192.0.2.10"), "gra-1.example.org")
	if err != nil || f.count("POST", "/reverse") != 2 {
		t.Errorf("error %v after %d posts", err, f.count("POST", "/reverse"))
	}
}
