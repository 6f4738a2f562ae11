//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popfleet/fleet/controller"
	"popfleet/internal/journal"
	"popfleet/lab/faults"
)

// upLimit bounds one `fleet up` of two nodes on emulated machines that share two busy cores.
const upLimit = 40 * time.Minute

// TestMachines is the main job on machines that boot: from nothing to serving with three kills on the way, looked at
// from outside, left alone, changed, unplugged, impersonated, searched for secrets, taken down. The steps build on each
// other, so the first that fails ends it.
func TestMachines(t *testing.T) {
	w := newSite(t)
	w.prepare(t)
	w.startController(t)
	t.Cleanup(func() { w.stopController() })
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"UpSurvivesThreeKills", w.upWithKills},
		{"StatusIsWhole", w.statusIsWhole},
		{"RootIsEncrypted", w.rootIsEncrypted},
		{"DNSAnswers", w.dnsAnswers},
		{"CommentIsReadBack", w.commentIsReadBack},
		{"UpAgainChangesNothing", w.upAgain},
		{"PlanIsWhatUpDoes", w.planIsWhatUpDoes},
		{"PowerCutHealsAlone", w.powerCut},
		{"ImpostorHearsNothing", w.impostor},
		{"NoSecretLeaked", w.noSecretLeaked},
		{"DownDestroysKeys", w.down},
	}
	for _, s := range steps {
		if !t.Run(s.name, s.do) {
			t.Fatalf("%s failed; what comes after it would say nothing", s.name)
		}
	}
}

// progressEvent is what the kill test reads of --json.
type progressEvent struct {
	Kind string
	Node string
	Data struct {
		Kind string
		Op   string
		Done int64
	}
}

// upWithKills kills the run while it installs, while it unlocks and while it converges, then lets it finish.
func (w *site) upWithKills(t *testing.T) {
	moments := []struct {
		what string
		at   func(progressEvent) bool
	}{
		{"streaming the image", func(e progressEvent) bool {
			return e.Data.Op == "install" && e.Data.Kind == "progress" && e.Data.Done > 0
		}},
		{"unlocking", func(e progressEvent) bool { return e.Data.Op == "unlock" && e.Data.Kind == "begin" }},
		{"converging", func(e progressEvent) bool { return e.Data.Op == "converge" && e.Data.Kind == "begin" }},
	}
	began := time.Now()
	for _, m := range moments {
		killed := false
		r := w.watch(t, upLimit, func(line string) bool {
			var e progressEvent
			if killed || json.Unmarshal([]byte(line), &e) != nil || e.Kind != "node" || !m.at(e) {
				return false
			}
			killed = true
			return true
		}, "up", "--yes", "--json")
		if !killed {
			t.Fatalf("never seen %s; exit %d\n%s", m.what, r.code, tail(r.errOut))
		}
		figure(t, "up, killed -9 while "+m.what, r.took)
	}
	last := w.fleet(t, upLimit, "up", "--yes", "--json").want(t, 0, "up, run to its end")
	figure(t, "up, the last run", last.took)
	figure(t, "from nothing to serving, two nodes, three kills", time.Since(began))
	if n := servers(t); n != 2 {
		t.Errorf("%d servers were created, want 2", n)
	}
	w.phases(t)
	w.wipedOnce(t)
}

// phases prints the wall time of each operation from the journal.
func (w *site) phases(t *testing.T) {
	t.Helper()
	for _, e := range w.entries(t, journal.Filter{Status: journal.Done}) {
		if e.Node != "" {
			figure(t, "  "+e.Node+" "+e.Op, e.Ended.Sub(e.Began))
		}
	}
}

func (w *site) entries(t *testing.T, f journal.Filter) []journal.Entry {
	t.Helper()
	j, err := journal.Open(filepath.Join(w.dir, ".fleet", "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	entries, err := j.Entries(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// wipedOnce counts how often each disk was erased, by the installers' own account: a worker that finds its marker on a
// disk erases nothing and says so. (On scripted machines the disks themselves count: lifecycle_kill_test.go.)
func (w *site) wipedOnce(t *testing.T) {
	t.Helper()
	wipes, runs := map[string]int{}, map[string]map[string]bool{}
	for _, e := range w.entries(t, journal.Filter{Op: "install"}) {
		var evidence struct {
			Run   string
			Wiped []string
		}
		if json.Unmarshal(e.Evidence, &evidence) != nil || evidence.Run == "" {
			continue
		}
		if runs[e.Node] == nil {
			runs[e.Node] = map[string]bool{}
		}
		runs[e.Node][evidence.Run] = true
		for _, serial := range evidence.Wiped {
			wipes[serial]++
		}
	}
	for _, n := range []string{"fsn-1", "fsn-2"} {
		if len(runs[n]) != 1 {
			t.Errorf("%s was installed by %d runs %v, want exactly one", n, len(runs[n]), runs[n])
		}
	}
	for serial, n := range wipes {
		if n != 1 {
			t.Errorf("disk %s was erased %d times, want once", serial, n)
		}
	}
	if len(wipes) != 2 {
		t.Errorf("%d disks were erased, want 2: %v", len(wipes), wipes)
	}
}

func (w *site) statusIsWhole(t *testing.T) {
	began := time.Now()
	s := w.status(t, "--wait", "12m")
	figure(t, "until the controller's picture is whole", time.Since(began))
	for _, n := range s.Nodes {
		if !n.Report.Host.RootLUKS {
			t.Errorf("%s does not report an encrypted root", n.Node)
		}
		for _, d := range n.Report.Disks {
			if d.Kind == "nvme" && (d.Serial == "" || d.TemperatureC == nil || d.CriticalFlags == nil) {
				t.Errorf("%s: disk without SMART data: %+v", n.Node, d)
			}
		}
	}
	if len(s.Pairs) != 2 {
		t.Errorf("%d directed pairs, want 2: %+v", len(s.Pairs), s.Pairs)
	}
	for _, p := range s.Pairs {
		if p.RTTMs == nil || p.OffsetMs == nil || p.Replicating {
			t.Errorf("pair %s → %s: %+v", p.From, p.To, p)
		}
	}
	table := w.fleet(t, time.Minute, "status").want(t, 0, "status")
	t.Logf("\n%s", table.out)
}

func (w *site) rootIsEncrypted(t *testing.T) {
	for _, name := range []string{"fsn-1", "fsn-2"} {
		r := w.fleet(t, 5*time.Minute, "ssh", name, "findmnt -no SOURCE / && cryptsetup status fleet-root && cryptsetup luksDump $(cryptsetup status fleet-root | awk '/device:/{print $2}')").want(t, 0, "ssh "+name)
		for _, want := range []string{"/dev/mapper/fleet-root", "type:    LUKS2", "aes-xts-plain64"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, r.out)
			}
		}
	}
}

func (w *site) address(t *testing.T, name string) string {
	t.Helper()
	return node(t, w.status(t), name).Address
}

func (w *site) dnsAnswers(t *testing.T) {
	a1, a2 := w.address(t, "fsn-1"), w.address(t, "fsn-2")
	for _, at := range []string{a1, a2} {
		both := w.dig(t, "+short", "@"+at, "demo.test", "A")
		if !strings.Contains(both, a1) || !strings.Contains(both, a2) {
			t.Errorf("@%s answers %q for the zone, want %s and %s", at, both, a1, a2)
		}
		if soa := w.dig(t, "+tcp", "@"+at, "demo.test", "SOA"); !strings.Contains(soa, " aa") || !strings.Contains(soa, "SOA") {
			t.Errorf("no authoritative SOA over TCP:\n%s", soa)
		}
		if other := w.dig(t, "@"+at, "example.org", "A"); !strings.Contains(other, "REFUSED") {
			t.Errorf("another zone is not refused:\n%s", other)
		}
		if none := w.dig(t, "@"+at, "nowhere.demo.test", "A"); !strings.Contains(none, "NXDOMAIN") {
			t.Errorf("a name that is not there:\n%s", none)
		}
	}
}

func (w *site) commentIsReadBack(t *testing.T) {
	at := w.address(t, "fsn-1")
	const text = "posted over TLS by the machine test"
	var thread struct{ ID string }
	created := w.client(t, at, "-H", "Content-Type: application/json", "-d", `{"title":"machine test"}`, "https://demo.test/api/threads")
	if err := json.Unmarshal([]byte(created), &thread); err != nil || thread.ID == "" {
		t.Fatalf("thread: %v\n%s", err, created)
	}
	comments := "https://demo.test/api/threads/" + thread.ID + "/comments"
	w.client(t, at, "-H", "Content-Type: application/json", "-d", `{"author":"test","text":"`+text+`"}`, comments)
	if back := w.client(t, at, comments); !strings.Contains(back, text) {
		t.Errorf("read back:\n%s", back)
	}
}

func (w *site) upAgain(t *testing.T) {
	before := len(w.entries(t, journal.Filter{}))
	r := w.fleet(t, 5*time.Minute, "up", "--yes").want(t, 0, "up again")
	figure(t, "up again, nothing to do (bar 15 s)", r.took)
	if !strings.Contains(r.out, "no changes") {
		t.Errorf("it says:\n%s", r.out)
	}
	for _, e := range w.entries(t, journal.Filter{})[before:] {
		t.Errorf("it acted: %s %s", e.Node, e.Op)
	}
}

func (w *site) planIsWhatUpDoes(t *testing.T) {
	path := filepath.Join(w.dir, "fleet.yaml")
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "fleet.yaml", append(original, []byte("\nservices:\n  dns:\n    ttl: 61s\n")...))
	p := w.fleet(t, 5*time.Minute, "plan").want(t, 2, "plan of a changed file")
	t.Logf("\n%s", p.out)
	for _, want := range []string{"fsn-1", "fsn-2", "/etc/fleet/dns.json"} {
		if !strings.Contains(p.out, want) {
			t.Errorf("the plan lacks %q", want)
		}
	}
	before := len(w.entries(t, journal.Filter{}))
	r := w.fleet(t, 10*time.Minute, "up", "--yes").want(t, 0, "up of the changed file")
	figure(t, "up of one changed setting", r.took)
	for _, e := range w.entries(t, journal.Filter{})[before:] {
		if e.Op != "converge" && e.Op != "wait-serving" {
			t.Errorf("up did what the plan did not print: %s %s", e.Node, e.Op)
		}
	}
	w.fleet(t, 5*time.Minute, "plan").want(t, 0, "plan afterwards")
	if answer := w.dig(t, "@"+w.address(t, "fsn-1"), "demo.test", "A"); !strings.Contains(answer, "\t61\t") {
		t.Errorf("the new TTL is not served:\n%s", answer)
	}
}

// powerCut pulls a node's plug and does nothing else.
func (w *site) powerCut(t *testing.T) {
	boot := node(t, w.status(t), "fsn-2").Report.BootID
	began := time.Now()
	if err := w.lab.Power(t.Context(), "demo-fsn-2", "cycle"); err != nil {
		t.Fatal(err)
	}
	var unlock *controller.Unlock
	eventually(t, 20*time.Minute, func() string {
		n := node(t, w.status(t), "fsn-2")
		switch {
		case n.Report == nil || n.Report.BootID == boot:
			return "no report of a new boot; the lock is " + n.Lock.State + " " + n.Lock.Why
		case n.Lock.LastUnlock == nil || n.Lock.LastUnlock.UnlockedToReportSec == nil:
			return "no record of the unlock"
		}
		for _, s := range n.Report.Services {
			if !s.Healthy {
				return s.Name + " is not healthy: " + s.Reason
			}
		}
		unlock = n.Lock.LastUnlock
		return ""
	})
	figure(t, "power cut to serving again, nobody did anything", time.Since(began))
	if unlock.DropbearToUnlocked != nil {
		figure(t, "  dropbear seen to unlocked", time.Duration(*unlock.DropbearToUnlocked*float64(time.Second)))
	}
	figure(t, "  unlocked to first report", time.Duration(*unlock.UnlockedToReportSec*float64(time.Second)))
	w.status(t, "--wait", "10m")
	w.commentIsReadBack(t)
}

// impostor puts another machine in fsn-2's place: first on SSH while the node runs, then on the unlock port while it
// waits for its key. The controller is away meanwhile: it lives in the machines' own network, where nobody stands
// between (what it does about an impostor is tested on scripted machines).
func (w *site) impostor(t *testing.T) {
	clear := w.impersonate(t, 22)
	r := w.fleet(t, 10*time.Minute, "up", "--yes", "fsn-2")
	w.refused(t, r, "fleet up with an impostor on port 22")
	clear()

	w.stopController()
	clear = w.impersonate(t, 2222)
	if err := w.lab.Power(t.Context(), "demo-fsn-2", "cycle"); err != nil {
		t.Fatal(err)
	}
	w.refused(t, w.fleet(t, 10*time.Minute, "unlock", "fsn-2"), "fleet unlock with an impostor on port 2222")
	clear()
	heard, err := w.lab.Impostor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if heard.Contacts == 0 || heard.Logins != 0 || heard.HeardBytes != 0 {
		t.Errorf("the impostor saw %+v; want contacts, no login, nothing heard", heard)
	}
	t.Logf("the impostor: %+v", heard)

	// With no controller at all: by hand. A node that still boots is silent, which is no failure of the command.
	eventually(t, 10*time.Minute, func() string {
		r := w.fleet(t, 10*time.Minute, "unlock", "--json", "fsn-2")
		if r.code != 0 || !strings.Contains(r.out, `"changed":true`) {
			return "the real node is not unlocked: " + tail(r.out+r.errOut)
		}
		return ""
	})
	w.startController(t)
	w.status(t, "--wait", "12m")
}

// impersonate sets the fault and returns what takes it back.
func (w *site) impersonate(t *testing.T, port uint16) (clear func()) {
	t.Helper()
	f, err := w.lab.AddFault(t.Context(), faults.Fault{Kind: faults.Impostor, Machine: "demo-fsn-2", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := w.lab.ClearFault(t.Context(), f.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *site) refused(t *testing.T, r result, what string) {
	t.Helper()
	if r.code != 1 || strings.Count(r.errOut, "SHA256:") < 2 {
		t.Errorf("%s: exit %d, want 1 and both fingerprints:\n%s", what, r.code, tail(r.errOut))
	}
	t.Logf("%s:\n%s", what, tail(r.errOut))
}

func (w *site) down(t *testing.T) {
	r := w.fleet(t, 20*time.Minute, "down", "--yes", "demo").want(t, 0, "down")
	figure(t, "down: key slots destroyed, servers given back", r.took)
	if n := servers(t); n != 0 {
		t.Errorf("%d servers are left", n)
	}
	for _, n := range []string{"fsn-1", "fsn-2"} {
		found := false
		for _, e := range w.entries(t, journal.Filter{Node: n, Op: "wipe", Status: journal.Done}) {
			var evidence struct {
				Devices   []string
				SlotsLeft *int `json:"slots_left"`
			}
			found = found || (json.Unmarshal(e.Evidence, &evidence) == nil && evidence.SlotsLeft != nil && *evidence.SlotsLeft == 0 && len(evidence.Devices) > 0)
		}
		if !found {
			t.Errorf("the journal holds no proof that no key slot of %s is left", n)
		}
	}
}
