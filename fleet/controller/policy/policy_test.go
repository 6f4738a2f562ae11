package policy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"popfleet/inventory/vault"
	"popfleet/provision/provider"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const pin = "SHA256:pinned"

// good is a node that every rule lets pass: alive a minute before it was seen locked, its own key, nothing foreign.
func good() Facts {
	return Facts{Now: noon, Asker: Controller, Who: "controller ctl", FirstSeen: noon.Add(-time.Minute), LastHeard: noon.Add(-2 * time.Minute),
		Pinned: []string{pin}, Shown: pin, Provider: CrossCheck{Done: true}}
}

func TestDecide(t *testing.T) {
	foreign := []provider.Activity{{At: noon.Add(-time.Hour), What: "enable_rescue", Risky: true}, {What: "rescue_enabled", Risky: true}}
	approved := &vault.Order{By: "ada", At: noon.Add(-time.Minute), Until: noon.Add(time.Minute)}
	for _, c := range []struct {
		name     string
		change   func(*Facts)
		settings Settings
		want     Decision
		why      string
		approved bool
	}{
		{name: "alive a minute before", change: func(*Facts) {}, want: Allow, why: "its agent reported 1m0s before it was seen locked"},
		{name: "nothing known", change: func(f *Facts) { *f = Facts{} }, want: Hold, why: "nothing was ever heard"},

		{name: "kill switch", change: func(f *Facts) { f.Never = &vault.Order{By: "ada", Why: "it was stolen"} }, want: Never, why: "never to be unlocked, says ada: it was stolen"},
		{name: "kill switch against approval", change: func(f *Facts) { f.Never, f.Approval = &vault.Order{By: "ada"}, approved }, want: Never},
		{name: "kill switch against an operator", change: func(f *Facts) { f.Never, f.Asker = &vault.Order{By: "ada"}, Operator }, want: Never},

		{name: "another host key", change: func(f *Facts) { f.Shown = "SHA256:other" }, want: Hold, why: "SHA256:other"},
		{name: "another host key, approved", change: func(f *Facts) { f.Shown, f.Approval = "SHA256:other", approved }, want: Hold, why: "SHA256:other"},
		{name: "another host key, for an operator", change: func(f *Facts) { f.Shown, f.Asker = "SHA256:other", Operator }, want: Hold},
		{name: "nothing pinned", change: func(f *Facts) { f.Pinned = nil }, want: Hold},
		{name: "no key shown", change: func(f *Facts) { f.Shown, f.Pinned = "", []string{""} }, want: Hold, why: "shows host key none"},
		{name: "one of two pins", change: func(f *Facts) { f.Pinned = []string{"SHA256:lasting", pin} }, want: Allow},

		{name: "suspect", change: func(f *Facts) { f.Suspect = &vault.Suspicion{Since: noon, Why: "boot/grub/grub.cfg changed"} }, want: Hold, why: "suspect since 2026-03-01T12:00:00Z: boot/grub/grub.cfg changed"},
		{name: "suspect, for an operator", change: func(f *Facts) { f.Suspect, f.Asker = &vault.Suspicion{Why: "x"}, Operator }, want: Hold},
		{name: "suspect, approved", change: func(f *Facts) { f.Suspect, f.Approval = &vault.Suspicion{Why: "x"}, approved }, want: Allow, why: "approved by ada, although it is suspect", approved: true},

		{name: "restarts again and again", change: func(f *Facts) { f.UnlocksInHour = 6 }, want: Hold, why: "unlocked 6 times within an hour"},
		{name: "restarts again and again, expected", change: func(f *Facts) { f.UnlocksInHour, f.ExpectedUntil = 6, noon }, want: Hold},
		{name: "restarts again and again, for an operator", change: func(f *Facts) { f.UnlocksInHour, f.Asker = 60, Operator }, want: Allow},
		{name: "five restarts", change: func(f *Facts) { f.UnlocksInHour = 5 }, want: Allow},
		{name: "own bound of restarts", change: func(f *Facts) { f.UnlocksInHour = 2 }, settings: Settings{UnlocksPerHour: 2}, want: Hold},

		{name: "silent for too long", change: func(f *Facts) { f.LastHeard = noon.Add(-17 * time.Minute) }, want: Hold, why: "silent for 16m0s before it was seen locked (more than 15m0s)"},
		{name: "just not too long", change: func(f *Facts) { f.LastHeard = noon.Add(-16 * time.Minute) }, want: Allow},
		{name: "own bound of silence", change: func(f *Facts) {}, settings: Settings{RecentlyAlive: 30 * time.Second}, want: Hold},
		{name: "seen by a command", change: func(f *Facts) { f.LastHeard, f.LastAlive = time.Time{}, noon.Add(-3*time.Minute) }, want: Allow, why: "it was seen running 2m0s"},
		{name: "never heard of", change: func(f *Facts) { f.LastHeard = time.Time{} }, want: Hold, why: "nothing was ever heard"},
		{name: "expected", change: func(f *Facts) { f.LastHeard, f.ExpectedUntil = time.Time{}, noon }, want: Allow, why: "its reboot was expected"},
		{name: "expectation over when it came", change: func(f *Facts) { f.LastHeard, f.ExpectedUntil = time.Time{}, f.FirstSeen.Add(-time.Second) }, want: Hold},
		{name: "an operator asks", change: func(f *Facts) { f.LastHeard, f.Asker, f.Who = time.Time{}, Operator, "ada@desk" }, want: Allow, why: "ada@desk asked for it"},
		{name: "approved", change: func(f *Facts) { f.LastHeard, f.Approval = time.Time{}, approved }, want: Allow, why: "approved by ada, although nothing", approved: true},
		{name: "approval that ran out", change: func(f *Facts) {
			f.LastHeard, f.Approval = time.Time{}, &vault.Order{By: "ada", Until: noon.Add(-time.Second)}
		}, want: Hold},
		{name: "approval nobody needs", change: func(f *Facts) { f.Approval = approved }, want: Allow, why: "its agent reported"},

		{name: "foreign activity", change: func(f *Facts) { f.Provider.Foreign = foreign }, want: Hold, why: "enable_rescue at 2026-03-01T11:00:00Z, rescue_enabled (now)"},
		{name: "foreign activity, for an operator", change: func(f *Facts) { f.Provider.Foreign, f.Asker = foreign, Operator }, want: Hold},
		{name: "foreign activity, expected", change: func(f *Facts) { f.Provider.Foreign, f.ExpectedUntil = foreign, noon }, want: Hold},
		{name: "foreign activity, approved", change: func(f *Facts) { f.Provider.Foreign, f.Approval = foreign, approved }, want: Allow, approved: true},
		{name: "not cross-checked", change: func(f *Facts) { f.Provider = CrossCheck{} }, want: Allow, why: "not cross-checked with its provider: nobody here has its credentials"},
		{name: "cross-check failed", change: func(f *Facts) { f.Provider = CrossCheck{Why: "503"} }, want: Allow, why: "not cross-checked with its provider: 503"},
		{name: "cross-check required", change: func(f *Facts) { f.Provider = CrossCheck{} }, settings: Settings{CrossCheck: Required}, want: Hold, why: "which this fleet requires"},
		{name: "cross-check required and done", change: func(*Facts) {}, settings: Settings{CrossCheck: Required}, want: Allow},
		{name: "two reasons", change: func(f *Facts) { f.LastHeard, f.UnlocksInHour = time.Time{}, 9 }, want: Hold, why: "9 times within an hour; nothing was ever"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := good()
			c.change(&f)
			v := c.settings.Decide(f)
			if v.Decision != c.want || !strings.Contains(v.Why, c.why) || v.Approved != c.approved {
				t.Errorf("got %s (approved %v) because %q\nwant %s (approved %v) because %q", v.Decision, v.Approved, v.Why, c.want, c.approved, c.why)
			}
			if _, err := json.Marshal(f); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOneRuleAloneDecides takes each rule out by its finding: for every way to fail there is exactly one rule that holds.
func TestOneRuleAloneDecides(t *testing.T) {
	bad := map[string]func(*Facts){
		"kill-switch": func(f *Facts) { f.Never = &vault.Order{By: "ada"} },
		"host-key":    func(f *Facts) { f.Shown = "SHA256:other" },
		"suspect":     func(f *Facts) { f.Suspect = &vault.Suspicion{} },
		"restarts":    func(f *Facts) { f.UnlocksInHour = 6 },
		"awaited":     func(f *Facts) { f.LastHeard = time.Time{} },
		"provider":    func(f *Facts) { f.Provider.Foreign = []provider.Activity{{What: "iso", Risky: true}} },
	}
	if len(bad) != len(rules) {
		t.Fatalf("%d rules, %d ways to fail", len(rules), len(bad))
	}
	for rule, change := range bad {
		f := good()
		change(&f)
		var against []string
		for _, found := range (Settings{}).Decide(f).Findings {
			if found.Decision != Allow {
				against = append(against, found.Rule)
			}
		}
		if len(against) != 1 || against[0] != rule {
			t.Errorf("%s: %v decided", rule, against)
		}
	}
}

func TestCompare(t *testing.T) {
	at := func(d time.Duration, what string, risky bool) provider.Activity {
		return provider.Activity{At: noon.Add(d), What: what, Risky: risky}
	}
	ours := []Span{{"enter-rescue", noon.Add(10 * time.Minute), noon.Add(11 * time.Minute)}}
	for _, c := range []struct {
		name    string
		act     provider.Activity
		since   time.Time
		foreign int
		ours    int
	}{
		{"harmless", at(time.Minute, "reboot_server", false), noon, 0, 0},
		{"before the last good boot", at(-time.Minute, "enable_rescue", true), noon, 0, 0},
		{"at the last good boot", at(0, "enable_rescue", true), noon, 1, 0},
		{"foreign", at(5*time.Minute, "enable_rescue", true), noon, 1, 0},
		{"ours", at(10*time.Minute+time.Second, "enable_rescue", true), noon, 0, 1},
		{"ours by a slow clock", at(10*time.Minute-clockSlack, "enable_rescue", true), noon, 0, 1},
		{"after ours", at(12*time.Minute, "attach_iso", true), noon, 1, 0},
		{"armed now", provider.Activity{What: "rescue_enabled", Risky: true}, noon, 1, 0},
		{"armed now, no good boot", provider.Activity{What: "rescue_enabled", Risky: true}, time.Time{}, 1, 0},
		{"no good boot to count from", at(5*time.Minute, "enable_rescue", true), time.Time{}, 0, 0},
		{"state that is harmless", provider.Activity{What: "bootId=harddisk"}, noon, 0, 0},
	} {
		got := Compare([]provider.Activity{c.act}, c.since, ours)
		if !got.Done || len(got.Foreign) != c.foreign || got.Ours != c.ours {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
