package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
)

// A node's way through every verdict, with the real binary and no controller: opened, its key exchanged; forbidden;
// held for what somebody did at the provider; approved once; changed on its disk, suspect, trusted again. Every decision
// is in a log whose chain holds, and one line changed is found.
func TestCLIUnlockDecisions(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	w.want(t, 0, "up", "--yes")
	m := w.lab.Machine(t, "demo-fsn-1")
	lock := func() {
		t.Helper()
		must(t, m.Reset(t.Context()))
		w.untilStage(t, m, "locked")
	}
	refused := func(words string, args ...string) {
		t.Helper()
		before := len(m.Ledger().Unlocks())
		o := w.want(t, 1, args...)
		if !strings.Contains(o.stderr, words) || len(m.Ledger().Unlocks()) != before {
			t.Fatalf("expected %q and no key sent: %d keys, %s", words, len(m.Ledger().Unlocks())-before, o)
		}
	}

	lock()
	first := w.machineKey(t)
	if o := w.want(t, 0, "unlock", "fsn-1"); !strings.Contains(o.stderr, "asked for it") || strings.Contains(o.stderr, "not cross-checked") {
		t.Errorf("the verdict is not said: %s", o)
	}
	if second := w.machineKey(t); second.Generation != first.Generation+1 || second.Phase != vault.RotationIdle || m.Slots()["machine"] != 1 {
		t.Errorf("the key was not exchanged: generation %d, %q, slots %v", second.Generation, second.Phase, m.Slots())
	}

	lock()
	w.want(t, 0, "unlock", "--never", "--why", "it was stolen", "fsn-1")
	refused("it was stolen", "unlock", "fsn-1")
	refused("it was stolen", "up", "--yes", "fsn-1")
	w.want(t, 0, "unlock", "--allow", "fsn-1")
	w.want(t, 0, "unlock", "fsn-1")

	w.rescueAndBack(t, "demo-fsn-1")
	lock()
	refused("what this fleet did not do: enable_rescue at", "unlock", "fsn-1")
	w.want(t, 0, "unlock", "--approve", "--for", "10m", "fsn-1")
	w.want(t, 0, "unlock", "fsn-1")

	token := w.env["HCLOUD_TOKEN"]
	delete(w.env, "HCLOUD_TOKEN")
	lock()
	if o := w.want(t, 0, "unlock", "fsn-1"); !strings.Contains(o.stderr, "not cross-checked with its provider") {
		t.Errorf("that nobody was asked is not said: %s", o)
	}
	w.env["HCLOUD_TOKEN"] = token

	m.Tamper("boot/initrd.img-6.1", "one that sends the key elsewhere")
	lock()
	if o := w.want(t, 1, "unlock", "fsn-1"); !strings.Contains(o.stderr, "boot/initrd.img-6.1 changed") {
		t.Errorf("the change is not named: %s", o)
	}
	lock()
	refused("it is suspect since", "unlock", "fsn-1")
	w.want(t, 0, "unlock", "--trust", "fsn-1")
	w.want(t, 0, "unlock", "fsn-1")

	w.judgeAudit(t)
	for _, u := range m.Ledger().Unlocks() {
		if u.Outcome != "opened" {
			t.Errorf("a key was refused: %+v", u)
		}
	}
	w.want(t, 1, "unlock", "--never", "--allow", "fsn-1")
	w.want(t, 1, "unlock", "--for", "1m", "fsn-1")
	w.want(t, 1, "unlock", "--trust", "fsn-1")
	w.want(t, 1, "unlock", "--never", "fsn-9")
}

func (w *cliWorld) machineKey(t testing.TB) vault.Rotation {
	t.Helper()
	r, err := w.openVault(t).MachineKey("fsn-1")
	must(t, err)
	return r
}

// rescueAndBack arms rescue at the provider, as somebody with the token does, and takes it back.
func (w *cliWorld) rescueAndBack(t testing.TB, server string) {
	t.Helper()
	api := hcloud.NewClient(hcloud.WithEndpoint(w.lab.URL), hcloud.WithToken(w.lab.Token))
	s, _, err := api.Server.GetByName(t.Context(), server)
	must(t, err)
	r, _, err := api.Server.EnableRescue(t.Context(), s, hcloud.ServerEnableRescueOpts{Type: hcloud.ServerRescueTypeLinux64})
	must(t, err)
	must(t, api.Action.WaitFor(t.Context(), r.Action))
	a, _, err := api.Server.DisableRescue(t.Context(), s)
	must(t, err)
	must(t, api.Action.WaitFor(t.Context(), a))
}

// judgeAudit demands that the log tells the whole story, and that a change in it is found.
func (w *cliWorld) judgeAudit(t testing.TB) {
	t.Helper()
	o := w.want(t, 0, "audit", "--json", "fsn-1")
	var story []string
	for _, e := range o.events(t) {
		if e.Kind == "decision" {
			story = append(story, e.Data["verdict"].(string))
		}
	}
	want := "opened good allow opened good rotated order never never order allow opened good rotated hold order allow opened good rotated " +
		"allow opened good rotated allow opened suspect hold order allow opened good rotated"
	if got := strings.Join(story, " "); got != want {
		t.Errorf("the log tells\n%s\nexpected\n%s", got, want)
	}
	path := w.path(".fleet", "audit.jsonl")
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(text), "it was stolen", "it was lost..", 1)), 0o600))
	if o := w.want(t, 1, "audit"); !strings.Contains(o.stderr, "was changed: its hash is not that of its content") {
		t.Errorf("a changed line: %s", o)
	}
	must(t, os.WriteFile(path, text, 0o600))
}
