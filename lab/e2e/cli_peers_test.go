package e2e

import (
	"strings"
	"testing"

	"popfleet/lab/inprocess"
)

// One line of the fleet file has the nodes open each other, and taking it away takes that back: each is planned, done once,
// and then fits.
func TestCLIPeers(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	w.edit(t, "      - name: fsn-2\n", "      - name: fsn-2\n      - name: fsn-3\n")
	w.want(t, 0, "up", "--yes")
	w.want(t, 0, "plan")

	w.edit(t, "services:\n", "unlock: {peers: 2}\n\nservices:\n")
	const said = "its peers get other shares"
	if o := w.want(t, 2, "plan"); strings.Count(o.stdout, said) != 3 {
		t.Errorf("plan with peers: %s", o)
	}
	if o := w.want(t, 0, "plan", "fsn"); strings.Contains(o.stdout, said) {
		t.Errorf("a part of the fleet decides about shares: %s", o)
	}
	w.want(t, 0, "up", "--yes")
	for _, node := range []string{"fsn-1", "fsn-2", "fsn-3"} {
		s, err := w.openVault(t).Shares(node)
		must(t, err)
		if s.Current == nil || s.Current.Threshold() != 2 || len(s.Current.Holders()) != 2 || s.Next != nil || s.Retiring {
			t.Errorf("%s: %+v", node, s)
		}
	}
	w.want(t, 0, "plan")
	w.want(t, 0, "check", "reboot")
	w.lab.Machine(t, "demo-fsn-2").SpoilPeers("popfleet-peers 1 fsn-2\n")
	if o := w.want(t, 3, "check", "reboot"); !strings.Contains(o.stdout, "FAIL peers") || strings.Count(o.stdout, "would not come back") != 1 {
		t.Errorf("a peers file that is not what was given: %s", o)
	}

	w.edit(t, "unlock: {peers: 2}\n\n", "")
	if o := w.want(t, 2, "plan"); strings.Count(o.stdout, said) != 3 {
		t.Errorf("plan without peers: %s", o)
	}
	w.want(t, 0, "up", "--yes")
	s, err := w.openVault(t).Shares("fsn-1")
	must(t, err)
	if s.Current != nil || s.Retiring {
		t.Errorf("shares are left: %+v", s)
	}
	w.want(t, 0, "plan")
}
