package statusview

import (
	"fmt"
	"slices"
	"strings"

	"popfleet/agents"
	"popfleet/fleet/controller"
)

// Severity orders findings.
type Severity int

// The severities, worst first.
const (
	Critical Severity = iota
	Warning
	Note
)

var severityWord = map[Severity]string{Critical: "CRITICAL", Warning: "warning", Note: "note"}

var severityColor = map[Severity]color{Critical: bad, Warning: warn}

// Finding is one thing that is not as it should be, and the command that helps; Node is empty for the fleet.
type Finding struct {
	Severity Severity
	Node     string
	Text     string
	Command  string
}

// Findings lists what is wrong, worst first. None means that every node of the fleet file reports and serves.
func Findings(s controller.Status) []Finding {
	var found []Finding
	for _, n := range s.Nodes {
		found = append(found, reach(n)...)
		found = append(found, trust(n)...)
		if n.Report != nil {
			found = append(found, host(n)...)
			found = append(found, disks(n)...)
			found = append(found, mirrors(n)...)
		}
		if n.Report != nil && n.Freshness == controller.Fresh {
			found = append(found, services(n)...)
		}
	}
	found = append(found, cutOff(s)...)
	found = append(found, releases(s)...)
	found = append(found, links(s.Pairs)...)
	slices.SortStableFunc(found, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) })
	return found
}

// reach: why a node can't be heard.
func reach(n controller.Node) []Finding {
	up := "fleet up " + n.PoP
	one := func(s Severity, command, format string, args ...any) []Finding {
		return []Finding{{s, n.Node, fmt.Sprintf(format, args...), command}}
	}
	switch State(n) {
	case Alarm:
		return one(Critical, n.Lock.Next, "it is not unlocked, and nothing more is sent to it: %s. Look at its console at the provider first", n.Lock.Why)
	case HeldState:
		return one(Critical, n.Lock.Next, "held: it waits for its key, and %s", n.Lock.Why)
	case Locked:
		return one(Warning, "", "locked: %s", orElse(n.Lock.Why, "it is about to be unlocked"))
	case Unlocking:
		return one(Note, "", "being unlocked: %s", n.Lock.Why)
	case Never:
		return one(Warning, up, "it never reported: %s", orElse(n.Lock.Why, "nothing is known of it"))
	case Unreachable:
		return one(Critical, up, "neither this controller nor any node that reports hears it")
	case Late:
		return one(Warning, lateCommand(n), "no report for %s%s", age(*n.LastReportAgeSec), lateReason(n))
	}
	return nil
}

// trust: a node that is not believed, or that somebody keeps locked.
func trust(n controller.Node) (found []Finding) {
	if q := n.Suspect; q != nil {
		found = append(found, Finding{Critical, n.Node, "suspect: " + q.Why + ". It gets no key unasked, and nothing should be taken from it; find out who changed it", q.Next})
	}
	if n.Never != "" {
		found = append(found, Finding{Note, n.Node, n.Never + " said that it is never to be unlocked", "fleet unlock --allow " + n.Node})
	}
	return found
}

func lateReason(n controller.Node) string {
	switch {
	case n.SystemAnswers != nil && *n.SystemAnswers:
		return "; its system answers, so its agent is at fault"
	case len(n.HeardBy) > 0:
		return "; " + strings.Join(n.HeardBy, ", ") + " still hear it, so the way from it to this controller is at fault"
	}
	return "; looking for it"
}

func lateCommand(n controller.Node) string {
	if n.SystemAnswers != nil && *n.SystemAnswers {
		return "fleet ssh " + n.Node + " journalctl -u fleet-agent -n 50"
	}
	return ""
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// leastFree is the part of the root file system that should be free.
const leastFree = 0.15

func host(n controller.Node) (found []Finding) {
	h := n.Report.Host
	if !h.RootLUKS {
		found = append(found, Finding{Critical, n.Node, "its root is not on LUKS", "fleet down " + n.Node + " && fleet up " + n.PoP})
	}
	if h.RootTotal > 0 && float64(h.RootFree) < leastFree*float64(h.RootTotal) {
		found = append(found, Finding{Warning, n.Node, fmt.Sprintf("%s of %s free on its root", size(h.RootFree), size(h.RootTotal)),
			"fleet ssh " + n.Node + " du -xh --max-depth=2 /"})
	}
	if h.ClockSynced != nil && !*h.ClockSynced {
		found = append(found, Finding{Warning, n.Node, "its clock is not synchronised", "fleet ssh " + n.Node + " timedatectl"})
	}
	return found
}

func disks(n controller.Node) (found []Finding) {
	for _, d := range n.Report.Disks {
		severity := Warning
		switch d.Verdict {
		case agents.DiskFailing:
			severity = Critical
		case agents.DiskWarn:
		default:
			continue
		}
		text := fmt.Sprintf("disk %s (%s) is %s", known(d.Serial), known(d.Model), d.Verdict)
		if len(d.Findings) > 0 {
			text += ": " + strings.Join(d.Findings, "; ")
		}
		if severity == Critical {
			text += ". Have the disk with this serial replaced at the provider"
		}
		found = append(found, Finding{severity, n.Node, text, ""})
	}
	return found
}

func services(n controller.Node) (found []Finding) {
	for _, s := range n.Report.Services {
		if s.Healthy {
			continue
		}
		found = append(found, Finding{Critical, n.Node, fmt.Sprintf("%s is not healthy: %s", s.Name, orElse(s.Reason, "it gives no reason")),
			"fleet ssh " + n.Node + " journalctl -u fleet-" + s.Name + " -n 50"})
	}
	return found
}

// cutOff: when no node at all is heard, the controller itself is the likelier culprit.
func cutOff(s controller.Status) []Finding {
	lost := 0
	for _, n := range s.Nodes {
		if n.Freshness == controller.Unreachable {
			lost++
		}
	}
	if lost < 2 || lost < len(s.Nodes) {
		return nil
	}
	return []Finding{{Critical, "", "not one node is heard: this controller may be cut off rather than the fleet down", ""}}
}

// releases: nodes that report should run the same.
func releases(s controller.Status) []Finding {
	var seen []string
	for _, n := range s.Nodes {
		if n.Report != nil && n.Freshness == controller.Fresh && !slices.Contains(seen, release(n)) {
			seen = append(seen, release(n))
		}
	}
	if len(seen) < 2 {
		return nil
	}
	return []Finding{{Warning, "", "nodes run different releases: " + strings.Join(seen, ", "), "fleet up"}}
}

func (v view) findings() string {
	all := Findings(v.status)
	if len(all) == 0 {
		return "nothing found wrong\n"
	}
	var b strings.Builder
	for _, f := range all {
		word := severityWord[f.Severity]
		text := f.Text
		if f.Node != "" {
			text = f.Node + ": " + text
		}
		lines := wrap(word+" "+clean(text), v.Width, gap)
		b.WriteString(severityColor[f.Severity].paint(word, v.Color) + strings.TrimPrefix(lines, word) + "\n")
		if f.Command != "" {
			b.WriteString("    " + clean(f.Command) + "\n")
		}
	}
	return b.String()
}
