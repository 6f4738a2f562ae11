package statusview

import (
	"fmt"
	"slices"
	"strings"

	"popfleet/agents"
	"popfleet/fleet/controller"
)

// mirrors: those that would not bear the loss of another disk. Mirrors of one node that miss the same are one finding.
func mirrors(n controller.Node) (found []Finding) {
	var order []lack
	names := map[lack][]string{}
	for _, m := range n.Report.Mirrors {
		if !m.Degraded {
			continue
		}
		l := lackOf(m)
		if names[l] == nil {
			order = append(order, l)
		}
		names[l] = append(names[l], m.Name+" ("+m.Device+")")
	}
	for _, l := range order {
		verb := "runs"
		if len(names[l]) > 1 {
			verb = "run"
		}
		found = append(found, Finding{l.severity, n.Node, fmt.Sprintf("%s: %s %s on %s", l.what, strings.Join(names[l], ", "), verb, l.how),
			"fleet mend " + n.Node})
	}
	return found
}

// lack is what keeps a mirror from being whole, in words.
type lack struct {
	severity  Severity
	what, how string
}

func lackOf(m agents.Mirror) lack {
	disks := fmt.Sprintf("%d of %s", m.ActiveMembers, count(m.WantedMembers, "disk"))
	if m.WantedMembers == 0 {
		return lack{Critical, "mirror degraded", "a number of disks that its kernel does not say"}
	}
	if written := beingWritten(m); written != "" {
		return lack{Warning, "mirror being rebuilt", disks + "; " + written}
	}
	return lack{Critical, "mirror degraded", disks + " (" + missing(m) + ")"}
}

// beingWritten names the disks that are on their way to being members, "" when there are none.
func beingWritten(m agents.Mirror) string {
	var serials []string
	for _, x := range m.Members {
		if !has(x, "faulty") && !has(x, "in_sync") {
			serials = append(serials, "disk "+known(x.Serial))
		}
	}
	if len(serials) == 0 {
		return ""
	}
	words := strings.Join(serials, ", ") + " is being written"
	if m.ProgressPercent != nil {
		words += fmt.Sprintf(", %.0f %%", *m.ProgressPercent)
	}
	return words
}

func has(x agents.MirrorMember, state string) bool {
	return slices.Contains(strings.Split(x.State, ","), state)
}

// missing names the disks that a mirror lost, as far as the node knows them.
func missing(m agents.Mirror) string {
	var words []string
	for _, x := range m.Members {
		if has(x, "faulty") {
			words = append(words, "the kernel gave up "+x.Device+", serial "+known(x.Serial))
		}
	}
	for _, serial := range m.Gone {
		if !slices.ContainsFunc(m.Members, func(x agents.MirrorMember) bool { return x.Serial == serial }) {
			words = append(words, "serial "+serial+" is gone")
		}
	}
	if len(words) == 0 {
		return "a disk is gone; its serial is not known, it was before this agent looked"
	}
	return strings.Join(words, "; ")
}
