package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// Every fault of the lab, on the way of one node from nothing to serving: the run recovers, or stops inside its deadline
// with the reason.
func TestFaultsOnTheWayUp(t *testing.T) {
	second := faults.Duration(time.Second)
	cases := map[string]struct {
		set  []faults.Fault
		want string // part of the error; "" is recovery
	}{
		"locked after create":         {set: []faults.Fault{{Kind: faults.Locked, Call: "enable_rescue", Times: 3}}},
		"rate limited":                {set: []faults.Fault{{Kind: faults.RateLimited, Times: 2, Skip: 4}}},
		"bad gateway":                 {set: []faults.Fault{{Kind: faults.BadGateway, Times: 2, Skip: 3}}},
		"service unavailable":         {set: []faults.Fault{{Kind: faults.Unavailable, Times: 2, Skip: 3}}},
		"no capacity":                 {set: []faults.Fault{{Kind: faults.ResourceUnavailable, Call: "create_server"}}, want: "no capacity"},
		"create: reply lost":          {set: []faults.Fault{{Kind: faults.ReplyLost, Call: "create_server", Times: 1}}},
		"enable rescue: reply lost":   {set: []faults.Fault{{Kind: faults.ReplyLost, Call: "enable_rescue", Times: 1}}},
		"reset: reply lost":           {set: []faults.Fault{{Kind: faults.ReplyLost, Call: "reset", Times: 1}}},
		"enable rescue: action fails": {set: []faults.Fault{{Kind: faults.ActionError, Call: "enable_rescue", Times: 1}}},
		"reset: action fails":         {set: []faults.Fault{{Kind: faults.ActionError, Call: "reset", Times: 1}}},
		"reset: action missing":       {set: []faults.Fault{{Kind: faults.ActionMissing, Call: "reset", Times: 1}}},
		"token refused":               {set: []faults.Fault{{Kind: faults.Unauthorized, Skip: 2}}, want: "HCLOUD_TOKEN"},

		"rescue refuses SSH for a second": {set: []faults.Fault{{Kind: faults.Refuse, Port: 22, For: second}}},
		"rescue never answers":            {set: []faults.Fault{{Kind: faults.Refuse, Port: 22}}, want: "rescue did not come up"},
		"rescue hangs once":               {set: []faults.Fault{{Kind: faults.BootHangs, Times: 1}}},
		"disk boots though rescue was on": {set: []faults.Fault{{Kind: faults.RescueIgnored, Times: 1}}},
		"disk boots for ever":             {set: []faults.Fault{{Kind: faults.RescueIgnored}}, want: "the disk booted although rescue was enabled"},
		"reset ignored once":              {set: []faults.Fault{{Kind: faults.ResetIgnored, Times: 1}}},
		"reset ignored for ever":          {set: []faults.Fault{{Kind: faults.ResetIgnored}}, want: "the restart had no effect"},
		"the installed disk hangs once":   {set: []faults.Fault{{Kind: faults.BootHangs, Times: 1, Skip: 1}}},
		"the installed disk hangs":        {set: []faults.Fault{{Kind: faults.BootHangs, Skip: 1}}, want: "nor after a reset"},

		"half-open in rescue":    {set: []faults.Fault{{Kind: faults.HalfOpen, Port: 22, Times: 1}}},
		"cut during the install": {set: []faults.Fault{{Kind: faults.Cut, Port: 22, Bytes: 4200, Times: 3}}},
		"install fails once":     {set: []faults.Fault{{Kind: faults.InstallFails, Times: 1}}},
		"install fails for ever": {set: []faults.Fault{{Kind: faults.InstallFails}}, want: "made to fail by the lab"},
		"reboot mid-install":     {set: []faults.Fault{{Kind: faults.SpontaneousBoot, Step: "image", Times: 1}}},
		"reboot mid-apply":       {set: []faults.Fault{{Kind: faults.SpontaneousBoot, Step: "files", Times: 1}}},

		"unlock too early":     {set: []faults.Fault{{Kind: faults.UnlockTooEarly, Times: 3}}},
		"no askpass prompt":    {set: []faults.Fault{{Kind: faults.AskpassTimeout, Times: 3}}},
		"unlock cut":           {set: []faults.Fault{{Kind: faults.UnlockCut, Times: 1}}},
		"service sick once":    {set: []faults.Fault{{Kind: faults.ServiceSick, Times: 1}}},
		"service sick":         {set: []faults.Fault{{Kind: faults.ServiceSick}}, want: "made unhealthy by the lab"},
		"another node answers": {set: []faults.Fault{{Kind: faults.WrongNode, Skip: 4}}, want: "the machine says it is another node"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, inprocess.Options{}, 1)
			for _, f := range c.set {
				w.lab.Faults.MustAdd(f)
			}
			start := time.Now()
			r := w.up(t)[0]
			t.Logf("%s after %s: %v", r.Stage, time.Since(start).Round(time.Millisecond), r.Err)
			if c.want == "" {
				w.serving(t, []lifecycle.Result{r})
				w.exactlyOnce(t)
				return
			}
			var e *lifecycle.Error
			if !errors.As(r.Err, &e) || !strings.Contains(e.Error(), c.want) || e.Next == "" {
				t.Fatalf("got %v, want an error with %q\n%s", r.Err, c.want, w.story("fsn-1"))
			}
			// What stopped goes on once the fault is gone.
			w.lab.Faults.Clear(0)
			w.serving(t, w.up(t))
			w.exactlyOnce(t)
		})
	}
}

// An impostor answers where the node should: the run stops at once, and nothing that matters was said to it.
func TestImpostor(t *testing.T) {
	for name, c := range map[string]struct {
		port   uint16
		locked bool
	}{
		"on SSH of a running node":           {22, false},
		"on SSH of a locked node":            {22, true},
		"on the unlock port of a locked one": {2222, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, inprocess.Options{}, 2)
			w.serving(t, w.up(t))
			m := w.lab.Machine(t, "fsn-1")
			if c.locked {
				must(t, m.Reset(t.Context()))
				w.until(t, "fsn-1", lifecycle.Locked)
			}
			tried := len(m.Ledger().Unlocks())
			w.lab.Faults.MustAdd(faults.Fault{Kind: faults.Impostor, Machine: "fsn-1", Port: c.port})
			w.deps.Compiler = &compiler{content: "second"}
			results := w.up(t)
			var wrong *remote.HostKeyError
			if !errors.As(results[0].Err, &wrong) {
				t.Fatalf("got %v", results[0].Err)
			}
			t.Logf("%v", results[0].Err)
			w.serving(t, results[1:]) // the other node is not held up
			if n := w.lab.Impostor.Logins(); n != 0 {
				t.Errorf("%d logins at the impostor", n)
			}
			if got := w.lab.Impostor.Heard(); len(got) != 0 {
				t.Errorf("the impostor heard %q", got)
			}
			if n := len(m.Ledger().Unlocks()); n != tried {
				t.Errorf("%d keys were sent", n-tried)
			}
		})
	}
}

// An impostor that answers while the node waits for its first boot, between installation and unlock.
func TestImpostorAtFirstBoot(t *testing.T) {
	for _, port := range []uint16{22, 2222} {
		w := newWorld(t, inprocess.Options{}, 1)
		w.deps.Allow = nil
		w.deps.Journal = &onBegin{memoryJournal: &memoryJournal{}, op: string(lifecycle.OpBootDisk), do: func() {
			w.lab.Faults.MustAdd(faults.Fault{Kind: faults.Impostor, Machine: "fsn-1", Port: port})
		}}
		r := w.up(t)[0]
		var wrong *remote.HostKeyError
		if !errors.As(r.Err, &wrong) {
			t.Fatalf("port %d: got %v\n%s", port, r.Err, w.story("fsn-1"))
		}
		if w.lab.Impostor.Logins() != 0 || len(w.lab.Impostor.Heard()) != 0 {
			t.Errorf("port %d: the impostor was spoken to", port)
		}
		w.lab.Faults.Clear(0)
		w.serving(t, w.up(t))
		w.exactlyOnce(t)
	}
}

// No secret that outlives the installation ever crosses the link to rescue, and none reaches journal or progress.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	j := &memoryJournal{}
	w.deps.Journal = j
	w.serving(t, w.up(t))
	k, err := w.vault.Node("fsn-1")
	must(t, err)
	l := w.lab.Machine(t, "fsn-1").Ledger()
	said := j.text.String() + w.story("fsn-1")
	for name, secret := range map[string][]byte{
		"machine key": k.MachineKey.Reveal(), "recovery key": k.RecoveryKey.Reveal(),
		"initramfs host key": k.InitramfsHostKey.Private.Reveal(), "system host key": k.SystemHostKey.Private.Reveal(),
	} {
		if l.Saw("rescue", secret) || l.Saw("dropbear", secret) {
			t.Errorf("the %s crossed a link it must not cross", name)
		}
		if !l.Saw("system", secret) {
			t.Errorf("the %s never reached the sealed system: this test sees nothing", name)
		}
		if strings.Contains(said, string(secret)) {
			t.Errorf("the %s is in the journal or in the progress", name)
		}
	}
	if !l.Saw("rescue", k.InstallKey.Reveal()) || strings.Contains(said, string(k.InstallKey.Reveal())) {
		t.Error("the install key is not where it should be")
	}
	if strings.Contains(said, w.lab.Token) {
		t.Error("the API token is in the journal or in the progress")
	}
}
