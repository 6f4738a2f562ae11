package e2e

import (
	"fmt"
	"strings"
	"testing"

	"popfleet/lab/inprocess"
)

// TestCLICheckReboot: every node is asked with what its next unlock relies on; one that would not come back is named, and
// the others are told about all the same.
func TestCLICheckReboot(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	if o := w.want(t, 3, "check", "reboot"); strings.Count(o.stdout, "could not be asked") != 2 || !strings.Contains(o.stdout, "no known address yet") {
		t.Errorf("before anything is there: %s", o)
	}
	w.want(t, 0, "up", "--yes")
	delete(w.env, "HCLOUD_TOKEN") // it asks the nodes, and no provider
	o := w.want(t, 0, "check", "reboot")
	if strings.Count(o.stdout, "would come back, with kernel 6.1") != 2 {
		t.Errorf("two whole nodes: %s", o)
	}
	m := w.lab.Machine(t, "demo-fsn-2")
	m.Tamper("boot/initrd.img-6.1", "evil")
	o = w.want(t, 3, "check", "reboot")
	for _, want := range []string{"✓ fsn-1 would come back", "✗ fsn-2 would not come back", "FAIL initramfs", "boot/initrd.img-6.1", "→ put them back"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("%q is not said: %s", want, o)
		}
	}
	if !strings.Contains(o.stderr, "1 of 2 node(s)") || !strings.Contains(o.stderr, "check reboot fsn-2") {
		t.Errorf("the end: %s", o)
	}
	w.want(t, 0, "check", "reboot", "fsn-1")
	m.Tamper("boot/initrd.img-6.1", "")
	o = w.want(t, 0, "check", "reboot", "fsn-2", "--json")
	told := false
	for _, e := range o.events(t) {
		if e.Kind == "boot_check" {
			told = e.Node == "fsn-2" && strings.Contains(fmt.Sprint(e.Data["checks"]), "key-slot")
		}
	}
	if !told {
		t.Errorf("no event: %s", o)
	}
	w.want(t, 1, "check", "reboot", "nobody-1")
}
