package e2e

import (
	"os"
	"strings"
	"testing"

	"popfleet/lab/inprocess"
)

// newMixedWorld is a PoP with one node at each provider: a cloud server, and two dedicated ones that exist already.
func newMixedWorld(t *testing.T, o inprocess.Options) *cliWorld {
	t.Helper()
	o.Robot, o.OVH = 2, 2
	w := newCLIWorld(t, o)
	for _, line := range w.lab.Env() {
		name, value, _ := strings.Cut(line, "=")
		w.env[name] = value
	}
	w.edit(t, "      - name: fsn-2\n", "      - name: fsn-2\n        machine: {provider: hetznerrobot, server: \""+w.lab.Robot.Servers()[0].ID+"\"}\n"+
		"      - name: fsn-3\n        machine: {provider: ovh, server: "+w.lab.OVH.Servers()[0].ID+"}\n")
	return w
}

// One PoP, three providers, one command: the same plan, the same stages, each disk erased once, the rescue of Robot known
// by what Robot publishes.
func TestCLIMixedPoP(t *testing.T) {
	t.Parallel()
	w := newMixedWorld(t, inprocess.Options{})
	planned := w.want(t, 2, "plan")
	for _, line := range []string{"take over DedicatedServer", "host keys that the provider publishes (api)", "(tofu)", "ERASE every fixed disk"} {
		if !strings.Contains(planned.stdout, line) {
			t.Errorf("the plan does not say %q:\n%s", line, planned.stdout)
		}
	}
	if o := w.want(t, 1, "up", "--yes"); !strings.Contains(o.stderr, "--adopt fsn-2 --adopt fsn-3") {
		t.Fatalf("two servers that exist were taken over without a word: %s", o)
	}
	for _, i := range append(w.lab.Robot.Servers(), w.lab.OVH.Servers()...) {
		if m := w.lab.Machine(t, i.ID); len(m.Ledger().Wipes()) > 0 || len(m.Ledger().Logins()) > 0 {
			t.Errorf("%s was touched before it was adopted", i.ID)
		}
	}
	up := w.want(t, 0, "up", "--yes", "--adopt", "fsn-2", "--adopt", "fsn-3")
	if n := strings.Count(up.stderr, "taken on first use (tofu)"); n != 2 {
		t.Errorf("first use was said %d times; expected it of the cloud server and of OVH's:\n%s", n, up.stderr)
	}
	for _, id := range []string{"demo-fsn-1", w.lab.Robot.Servers()[0].ID, w.lab.OVH.Servers()[0].ID} {
		m := w.lab.Machine(t, id)
		wipes := m.Ledger().Wipes()
		if m.Stage() != "system" || len(wipes) != len(m.Serials()) {
			t.Errorf("%s is %s, %d of %d disks erased", id, m.Stage(), len(wipes), len(m.Serials()))
		}
		for serial, n := range wipes {
			if n != 1 {
				t.Errorf("%s: disk %s was erased %d times", id, serial, n)
			}
		}
	}
	noop := w.want(t, 0, "up", "--yes")
	if noop.stdout != "no changes: 3 node(s) as the fleet file says\n" {
		t.Errorf("second up: %s", noop)
	}
	t.Logf("mixed PoP: plan %.1f s, up %.1f s, again %.1f s", planned.took.Seconds(), up.took.Seconds(), noop.took.Seconds())
	w.downMixed(t)
}

// downMixed: keys destroyed first, the cloud server deleted, the contracts untouched and named.
func (w *cliWorld) downMixed(t *testing.T) {
	t.Helper()
	robot, ovh := w.lab.Robot.Servers()[0], w.lab.OVH.Servers()[0]
	o := w.want(t, 0, "down", "demo", "--yes")
	for _, id := range []string{robot.ID, ovh.ID} {
		if !strings.Contains(o.stdout, "left for you") || !strings.Contains(o.stdout, id) {
			t.Errorf("nobody is told that the contract of %s goes on:\n%s", id, o.stdout)
		}
		if m := w.lab.Machine(t, id); len(m.Ledger().KeysWiped()) != len(m.Serials()) {
			t.Errorf("%s: key slots destroyed on %v of %v", id, m.Ledger().KeysWiped(), m.Serials())
		}
	}
	if len(w.lab.Robot.Servers()) != 2 || len(w.lab.OVH.Servers()) != 2 || len(w.lab.Cloud.Servers()) != 0 {
		t.Errorf("left: %d at Robot, %d at OVH, %d in the cloud", len(w.lab.Robot.Servers()), len(w.lab.OVH.Servers()), len(w.lab.Cloud.Servers()))
	}
	if _, err := os.Stat(w.path("secrets", "nodes", "fsn-2")); !os.IsNotExist(err) {
		t.Errorf("the keys of fsn-2 are still kept: %v", err)
	}
}

// A dedicated node moves to another server of the same account; its old disks open for nobody.
func TestCLIReplaceDedicated(t *testing.T) {
	t.Parallel()
	w := newMixedWorld(t, inprocess.Options{})
	w.want(t, 0, "up", "--yes", "--adopt", "fsn-2", "--adopt", "fsn-3")
	if o := w.want(t, 1, "replace", "fsn-2", "--yes"); !strings.Contains(o.stderr, "would come back on the very server") {
		t.Errorf("replace by itself: %s", o)
	}
	old, next := w.lab.Robot.Servers()[0].ID, w.lab.Robot.Servers()[1].ID
	w.edit(t, `server: "`+old+`"`, `server: "`+next+`"`)
	if o := w.run(t, "up", "--yes", "--adopt", "fsn-2"); o.code == 0 || !strings.Contains(o.stderr, "fleet replace fsn-2") {
		t.Errorf("up with another server under a living node: %s", o)
	}
	w.want(t, 0, "replace", "fsn-2", "--yes")
	if m := w.lab.Machine(t, old); len(m.Ledger().KeysWiped()) != len(m.Serials()) {
		t.Errorf("the old server still opens: %v", m.Ledger().KeysWiped())
	}
	if m := w.lab.Machine(t, next); m.Stage() != "system" {
		t.Errorf("the new server is %s", m.Stage())
	}
	w.want(t, 0, "plan")
}
