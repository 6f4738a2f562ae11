package robot_test

import (
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/robot"
)

// last reads boot_time and the host keys of the newest rescue boot; ok is false before the first.
func (f *fixture) last(n string) (bootTime string, keys map[string]bool, ok bool) {
	f.t.Helper()
	a := f.call("GET", "/boot/"+n+"/rescue/last", nil)
	if a.status == 404 {
		return "", nil, false
	}
	bootTime, _ = a.at("rescue", "boot_time").(string)
	keys = map[string]bool{}
	for _, k := range a.list("rescue", "host_key") {
		keys[k.(map[string]any)["key"].(map[string]any)["fingerprint"].(string)] = true
	}
	return bootTime, keys, true
}

func (f *fixture) enterRescue(n int) {
	f.t.Helper()
	f.ok("POST", "/boot/"+num(n)+"/rescue", params{"os": "linux"})
	f.ok("POST", "/reset/"+num(n), params{"type": "hw"})
	f.eventually("rescue", func() bool { return f.stage(n) == "rescue" })
}

func num(n int) string { return map[int]string{322: "322", 323: "323"}[n] }

// What is published are the keys that the rescue system shows, fresh at every boot, and rescue is used up by it.
func TestPublishedKeysAreShown(t *testing.T) {
	f := start(t, nil, nil)
	seen, before := map[string]bool{}, ""
	for range 2 {
		f.enterRescue(322)
		at, keys, ok := f.last("322")
		if _, err := time.Parse("2006-01-02 15:04:05", at); err != nil || !ok || at <= before {
			t.Errorf("boot_time %q after %q: %v", at, before, err)
		}
		shown := f.shownKeys(322)
		for k := range keys {
			if !shown[k] || seen[k] {
				t.Errorf("published key %s: shown %v, seen in the boot before %v", k, shown[k], seen[k])
			}
			seen[k] = true
		}
		if len(keys) != 3 || len(shown) != 3 {
			t.Errorf("%d keys published, %d shown", len(keys), len(shown))
		}
		if f.ok("GET", "/boot/322/rescue", nil).at("rescue", "active") != false {
			t.Error("the boot did not use rescue up")
		}
		before = at
	}
	f.ok("POST", "/reset/322", params{"type": "hw"})
	f.eventually("the disk", func() bool { return f.stage(322) == "factory" })
	if at, _, _ := f.last("322"); at != before {
		t.Error("a boot from disk changed the last rescue boot")
	}
}

// pause is how long each part of a start takes in tests that look into it.
const pause = 150 * time.Millisecond

func slow(o *robot.Options) {
	o.Delay = func(what string) time.Duration {
		return map[string]time.Duration{"post": pause, "rescue": pause}[what]
	}
}

// Until the new boot has told its keys, the former boot's are there, and no SSH answers before they are replaced.
func TestKeysComeBeforeSSH(t *testing.T) {
	f := start(t, nil, slow)
	f.enterRescue(322)
	before, old, _ := f.last("322")
	f.ok("POST", "/boot/322/rescue", params{"os": "linux"})
	began := time.Now()
	f.ok("POST", "/reset/322", params{"type": "hw"})
	if at, keys, _ := f.last("322"); at != before || len(keys) != len(old) {
		t.Errorf("right after the reset: boot_time %s, was %s", at, before)
	}
	f.eventually("a new boot_time", func() bool {
		up := f.stage(322) == "rescue"
		at, _, _ := f.last("322")
		if up && at == before {
			t.Fatal("SSH answers and no key was published")
		}
		return at != before
	})
	if d := time.Since(began); d < 2*pause {
		t.Errorf("published %v after the reset", d)
	}
}

// A reset in the middle of a start uses nothing up: rescue is booted by the start that comes through.
func TestResetOvertakesAStart(t *testing.T) {
	f := start(t, nil, slow)
	f.ok("POST", "/boot/322/rescue", params{"os": "linux"})
	for range 3 {
		f.ok("POST", "/reset/322", params{"type": "hw"})
	}
	f.eventually("rescue", func() bool { return f.stage(322) == "rescue" })
	if _, keys, ok := f.last("322"); !ok || len(keys) != 3 {
		t.Errorf("published: %v %d", ok, len(keys))
	}
}

// A rescue system that is still loading tells nothing and answers nothing; a reset then boots the disk, for it is used up.
func TestResetOvertakesALoadingRescue(t *testing.T) {
	f := start(t, nil, func(o *robot.Options) {
		o.Delay = func(what string) time.Duration { return map[string]time.Duration{"rescue": time.Hour}[what] }
	})
	f.eventually("the first boot", func() bool { return f.stage(322) == "factory" })
	f.ok("POST", "/boot/322/rescue", params{"os": "linux"})
	f.reset("hw")
	f.eventually("the network boot", func() bool { return f.ok("GET", "/boot/322/rescue", nil).at("rescue", "active") == false })
	for range 100 {
		if _, _, told := f.last("322"); told || f.stage(322) != "booting" {
			t.Fatalf("told %v, stage %s", told, f.stage(322))
		}
	}
	f.reset("hw")
	f.eventually("the disk", func() bool { return f.stage(322) == "factory" })
	if _, _, told := f.last("322"); told {
		t.Error("a rescue system that never came up told its keys")
	}
}

func TestVKVM(t *testing.T) {
	f := start(t, nil, nil)
	a := f.ok("POST", "/boot/322/rescue", params{"os": "vkvm"})
	if p, _ := a.at("rescue", "password").(string); a.at("rescue", "os") != "vkvm" || p == "" {
		t.Errorf("activated: %s", a.raw)
	}
	f.ok("POST", "/reset/322", params{"type": "hw"})
	f.eventually("the boot", func() bool { _, _, ok := f.last("322"); return ok })
	if at, keys, _ := f.last("322"); at != "" || len(keys) != 0 {
		t.Errorf("a vKVM published %q and %d keys", at, len(keys))
	}
}

func TestMachineFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault faults.Fault
		stage string
		told  bool // a new boot is in /rescue/last
		armed bool // rescue still waits
	}{
		{"rescue ignored", faults.Fault{Kind: faults.RescueIgnored}, "factory", false, true},
		{"rescue never", faults.Fault{Kind: faults.RescueNever}, "dead", false, false},
		{"boot hangs", faults.Fault{Kind: faults.BootHangs}, "dead", false, false},
		{"rescue slow", faults.Fault{Kind: faults.RescueSlow, For: faults.Duration(50 * time.Millisecond)}, "rescue", true, false},
		{"disks swapped", faults.Fault{Kind: faults.DisksSwapped}, "rescue", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, nil, nil)
			f.eventually("the first boot", func() bool { return f.stage(322) == "factory" })
			f.ok("POST", "/boot/322/rescue", params{"os": "linux"})
			c.fault.Machine, c.fault.Times = "322", 1
			set := f.faults.MustAdd(c.fault)
			f.ok("POST", "/reset/322", params{"type": "hw"})
			f.eventually(c.stage, func() bool { return f.faults.Hits(set.ID) == 1 && f.stage(322) == c.stage })
			_, _, told := f.last("322")
			if armed := f.ok("GET", "/boot/322/rescue", nil).at("rescue", "active"); told != c.told || armed != c.armed {
				t.Errorf("told %v, armed %v", told, armed)
			}
		})
	}
}

func TestHostKeyLate(t *testing.T) {
	f := start(t, nil, nil)
	f.faults.MustAdd(faults.Fault{Kind: faults.HostKeyLate, Machine: "fsn-2", Times: 1})
	f.enterRescue(322)
	if at, keys, ok := f.last("322"); !ok || at == "" || len(keys) != 0 {
		t.Errorf("boot_time %q and %d keys; SSH answers, the keys are late", at, len(keys))
	}
	f.eventually("the keys", func() bool { _, keys, _ := f.last("322"); return len(keys) == 3 })
}

func TestForeignActivity(t *testing.T) {
	f := start(t, nil, nil)
	print := f.addKey()
	f.faults.MustAdd(faults.Fault{Kind: faults.ForeignActivity, Machine: "322", Times: 1})
	f.refused(409, "BOOT_ALREADY_ENABLED", "POST", "/boot/322/rescue", params{"os": "linux", "authorized_key[]": print})
	if a := f.ok("GET", "/boot/322/rescue", nil); a.at("rescue", "active") != true || len(a.list("rescue", "authorized_key")) != 0 {
		t.Errorf("somebody else's: %s", a.raw)
	}
	f.ok("DELETE", "/boot/322/rescue", nil)
	f.faults.MustAdd(faults.Fault{Kind: faults.ForeignActivity, Machine: "322", Step: "boot", Times: 1})
	f.ok("GET", "/boot/322", nil)
	f.eventually("somebody else's boot", func() bool { _, _, ok := f.last("322"); return ok })
	before, _, _ := f.last("322")
	must(t, f.robot.Foreign(322, "boot"))
	f.eventually("another", func() bool { at, _, _ := f.last("322"); return at != before })
	if f.robot.Foreign(7, "") == nil {
		t.Error("somebody acts on a server that is not there")
	}
}
