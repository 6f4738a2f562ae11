package statusview_test

import (
	"strings"
	"testing"

	"popfleet/fleet/controller"
	"popfleet/fleet/statusview"
)

// A node that is not believed is the worst there is, though it serves; one that somebody keeps locked is a note.
func TestWhoIsNotBelieved(t *testing.T) {
	s := healthy()
	s.Nodes[0].Suspect = &controller.Suspect{Since: noon, Why: "boot/grub/grub.cfg changed", Next: "fleet unlock --trust fsn-1"}
	s.Nodes[1].Never = "ada@desk"
	found := statusview.Findings(s)
	if len(found) < 2 || found[0].Severity != statusview.Critical || found[0].Node != "fsn-1" || found[0].Command != "fleet unlock --trust fsn-1" ||
		!strings.Contains(found[0].Text, "suspect: boot/grub/grub.cfg changed") {
		t.Errorf("%+v", found)
	}
	if f := found[1]; f.Severity != statusview.Note || f.Command != "fleet unlock --allow fsn-2" || !strings.Contains(f.Text, "ada@desk") {
		t.Errorf("%+v", f)
	}
}
