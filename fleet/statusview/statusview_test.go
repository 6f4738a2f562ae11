package statusview_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller"
	"popfleet/fleet/statusview"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// serving is a node with nothing wrong.
func serving(pop, name, address, serial string, heard float64) controller.Node {
	r := &agents.Report{V: 1, Node: name, BootID: "b", Seq: 9, Time: noon, Release: "sha256:3f9a1c2be7705a11",
		Host: agents.Host{Hostname: name, UptimeSec: 7500, RootTotal: 40e9, RootFree: 30e9, RootLUKS: true, ClockSynced: ptr(true)},
		Disks: []agents.Disk{{Serial: serial, Model: "QEMU NVMe Ctrl", Kind: "nvme", SizeBytes: 8589934592, Verdict: agents.DiskOK,
			TemperatureC: ptr(50), PowerOnHours: ptr(uint64(1234)), PercentUsed: ptr(0), MediaErrors: ptr(uint64(0))}},
	}
	for _, s := range []string{"store", "replicator", "app", "transport", "dns", "agent"} {
		r.Services = append(r.Services, agents.Service{Name: s, Healthy: true, State: "serving"})
	}
	return controller.Node{Node: name, PoP: pop, Address: address, Freshness: controller.Fresh, Since: noon.Add(-time.Hour),
		LastReportAgeSec: &heard, Lock: controller.Lock{State: controller.Unlocked}, Report: r}
}

func connected(from, to string, rtt, offset float64) controller.Pair {
	return controller.Pair{To: to, Pair: agents.Pair{From: from, State: "connected", RTTMs: &rtt, OffsetMs: &offset, AgeSec: ptr(0.6)}}
}

func status(nodes ...controller.Node) controller.Status {
	return controller.Status{V: 1, Time: noon, Fleet: "demo", Nodes: nodes}
}

func healthy() controller.Status {
	a, b := serving("fsn", "fsn-1", "198.18.0.10", "FSN1-0", 4), serving("fsn", "fsn-2", "198.18.0.11", "FSN2-0", 0.7)
	b.Lock.LastUnlock = &controller.Unlock{At: noon.Add(-20 * time.Minute), DropbearToUnlocked: ptr(14.2), UnlockedToReportSec: ptr(33.0)}
	s := status(a, b)
	s.Pairs = []controller.Pair{connected("fsn-2", "fsn-1", 0.42, -1.31), connected("fsn-1", "fsn-2", 0.39, 1.28)}
	return s
}

// troubled has one node for each trouble.
func troubled() controller.Status {
	held := serving("fsn", "fsn-1", "198.18.0.10", "FSN1-0", 4*3600)
	held.Freshness = controller.Late
	held.Lock = controller.Lock{State: controller.Held, Next: "fleet unlock fsn-1",
		Why: "it was silent for 4h0m0s before it was seen locked (more than 15m0s), and no reboot was expected"}
	alarm := serving("fsn", "fsn-2", "198.18.0.11", "FSN2-0", 95)
	alarm.Freshness = controller.Late
	alarm.Lock = controller.Lock{State: controller.Held, Alarm: true, Next: "fleet unlock fsn-2",
		Why: "198.18.0.11:2222 answers with host key SHA256:b, pinned is SHA256:a: another machine answers on this address"}
	sick := serving("gra", "gra-1", "198.18.1.10", "GRA1-0", 2)
	sick.Report.Release, sick.Report.Host.RootLUKS, sick.Report.Host.RootFree = "sha256:00aa", false, 1e9
	sick.Report.Host.ClockSynced = ptr(false)
	sick.Report.Services[2].Healthy, sick.Report.Services[2].Reason = false, "no answer from the replicator"
	sick.Report.Disks[0].Verdict, sick.Report.Disks[0].Findings = agents.DiskFailing, []string{"available_spare 5 below 10"}
	sick.Report.Disks = append(sick.Report.Disks, agents.Disk{Serial: "", Model: "", Kind: "virtual", SizeBytes: 1e12, Verdict: agents.DiskUnsupported})
	draining := serving("gra", "gra-2", "198.18.1.11", "GRA2-0", 2)
	draining.Report.Services[3].State = "draining"
	late := serving("gra", "gra-3", "198.18.1.12", "GRA3-0", 40)
	late.Freshness, late.HeardBy = controller.Late, []string{"gra-1", "gra-2"}
	agentless := serving("waw", "waw-1", "198.18.2.10", "WAW1-0", 130)
	agentless.Freshness, agentless.SystemAnswers = controller.Late, ptr(true)
	gone := serving("waw", "waw-2", "198.18.2.11", "WAW2-0", 7300)
	gone.Freshness = controller.Unreachable
	fresh := controller.Node{Node: "waw-3", PoP: "waw", Freshness: controller.Never,
		Lock: controller.Lock{State: controller.LockUnknown, Why: "it is not sealed yet: `fleet up` has work to do"}}
	agentless.Report.Mirrors = []agents.Mirror{degraded("fleet-boot", "md126"), degraded("fleet-root", "md127")}
	s := status(held, alarm, sick, draining, late, agentless, gone, fresh)
	s.Pairs = []controller.Pair{connected("gra-1", "gra-2", 12.5, 0.1),
		{To: "gra-1", Pair: agents.Pair{From: "gra-2", State: "stalled", AgeSec: ptr(14.0)}},
		{To: "gra-1", Pair: agents.Pair{From: "waw-3", State: "never_connected"}},
		{To: "waw-3", Pair: agents.Pair{From: "gra-1", State: controller.PairUnknown}, Why: "waw-3 never reported"}}
	return s
}

// many has enough nodes for a matrix.
func many() controller.Status {
	var nodes []controller.Node
	for i := range 7 {
		nodes = append(nodes, serving("fsn", fmt.Sprintf("fsn-%d", i+1), "198.18.0.10", fmt.Sprint("S", i), 1))
	}
	s := status(nodes...)
	for _, to := range nodes {
		for _, from := range nodes {
			switch {
			case from.Node == to.Node:
			case to.Node == "fsn-7":
				s.Pairs = append(s.Pairs, controller.Pair{To: to.Node, Pair: agents.Pair{From: from.Node, State: controller.PairUnknown}})
			default:
				s.Pairs = append(s.Pairs, connected(from.Node, to.Node, 1.25, 0))
			}
		}
	}
	return s
}

func TestRender(t *testing.T) {
	for name, c := range map[string]struct {
		status  controller.Status
		options statusview.Options
	}{
		"healthy":         {healthy(), statusview.Options{}},
		"healthy-color":   {healthy(), statusview.Options{Color: true}},
		"troubled":        {troubled(), statusview.Options{Width: 110}},
		"troubled-narrow": {troubled(), statusview.Options{Width: 72}},
		"many":            {many(), statusview.Options{Width: 100}},
		"empty":           {controller.Status{V: 1, Time: noon, Fleet: "demo"}, statusview.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := statusview.Render(&out, c.status, c.options); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("differs from %s (-update writes it):\n%s", golden, out.String())
			}
		})
	}
}

// A node's words must not act on the terminal of whoever looks.
func TestNodesCannotWriteToTheTerminal(t *testing.T) {
	s := healthy()
	evil := "\x1b]0;pwned\x07\x1b[2J\r\u202e\xff\n"
	r := s.Nodes[0].Report
	r.Release, r.Disks[0].Serial, r.Disks[0].Model, r.Disks[0].Kind, r.Disks[0].Verdict = evil, evil, evil, evil, evil
	r.Disks[0].Verdict = agents.DiskFailing
	r.Disks[0].Findings = []string{evil + strings.Repeat("x", 5000)}
	r.Services[0] = agents.Service{Name: evil, Reason: evil}
	s.Pairs[0].State, s.Pairs[0].From = evil, evil
	var out bytes.Buffer
	if err := statusview.Render(&out, s, statusview.Options{}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexAny(out.String(), "\x1b\x07\r\u202e\ufffd"); i >= 0 {
		t.Errorf("a control character came through at %d", i)
	}
	if out.Len() > 8000 {
		t.Errorf("%d bytes: a node fills the screen", out.Len())
	}
}
