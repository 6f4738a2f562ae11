package statusview_test

import (
	"strings"
	"testing"

	"popfleet/agents"
	"popfleet/fleet/controller"
	"popfleet/fleet/statusview"
)

// degraded is a mirror of two disks whose second is gone.
func degraded(name, device string) agents.Mirror {
	return agents.Mirror{Name: name, Device: device, WantedMembers: 2, ActiveMembers: 1, Degraded: true, Action: "idle", Gone: []string{"B"},
		Members: []agents.MirrorMember{{Device: "nvme0n1p4", Serial: "A", State: "in_sync"}}}
}

// TestMirrors: in plain words, with the serial as far as it is known, and once for all mirrors that lost the same disk.
func TestMirrors(t *testing.T) {
	with := func(change func(*agents.Mirror)) []agents.Mirror {
		m := degraded("fleet-root", "md127")
		change(&m)
		return []agents.Mirror{m}
	}
	member := func(state string) agents.MirrorMember {
		return agents.MirrorMember{Device: "nvme1n1p4", Serial: "B", State: state}
	}
	for name, c := range map[string]struct {
		mirrors  []agents.Mirror
		severity statusview.Severity
		says     string // "": no finding
	}{
		"whole": {with(func(m *agents.Mirror) { m.Degraded, m.ActiveMembers = false, 2 }), 0, ""},
		"gone": {with(func(*agents.Mirror) {}), statusview.Critical,
			"mirror degraded: fleet-root (md127) runs on 1 of 2 disks (serial B is gone)"},
		"both": {[]agents.Mirror{degraded("fleet-boot", "md126"), degraded("fleet-root", "md127")}, statusview.Critical,
			"mirror degraded: fleet-boot (md126), fleet-root (md127) run on 1 of 2 disks (serial B is gone)"},
		"unknown": {with(func(m *agents.Mirror) { m.Gone = nil }), statusview.Critical, "its serial is not known"},
		"faulty": {with(func(m *agents.Mirror) { m.Members = append(m.Members, member("faulty")) }), statusview.Critical,
			"runs on 1 of 2 disks (the kernel gave up nvme1n1p4, serial B)"},
		"rebuilt": {with(func(m *agents.Mirror) {
			m.Members, m.ProgressPercent = append(m.Members, member("spare")), ptr(37.4)
		}), statusview.Warning, "mirror being rebuilt: fleet-root (md127) runs on 1 of 2 disks; disk B is being written, 37 %"},
		"not told": {with(func(m *agents.Mirror) { m.WantedMembers = 0 }), statusview.Critical, "does not say"},
	} {
		t.Run(name, func(t *testing.T) {
			n := serving("fsn", "fsn-1", "198.18.0.10", "A", 1)
			n.Report.Mirrors = c.mirrors
			found := statusview.Findings(status(n))
			if c.says == "" {
				if len(found) != 0 {
					t.Errorf("%+v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Severity != c.severity || found[0].Node != "fsn-1" || !strings.Contains(found[0].Text, c.says) || found[0].Command == "" {
				t.Errorf("%+v", found)
			}
		})
	}
	late := serving("fsn", "fsn-1", "198.18.0.10", "A", 40)
	late.Freshness, late.Report.Mirrors = controller.Late, []agents.Mirror{degraded("fleet-root", "md127")}
	if found := statusview.Findings(status(late)); len(found) != 2 {
		t.Errorf("a node that is late lost its finding: %+v", found)
	}
}
