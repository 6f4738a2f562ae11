// Package statusview writes a controller's status as text for people: a table of nodes, of their disks, of the directed
// pairs between them, and what was found wrong with the command that helps. It asks nobody and decides nothing; what is
// unknown is shown as unknown, never as good. Words carry the meaning and colour only repeats it.
//
// What nodes say of themselves is not trusted: control characters of theirs never reach the terminal.
package statusview

import (
	"fmt"
	"io"
	"strings"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller"
)

// Options of the terminal.
type Options struct {
	Width int  // columns; 0: unlimited
	Color bool // use ANSI colours
}

// Render writes s as text.
func Render(w io.Writer, s controller.Status, o Options) error {
	v := view{status: s, Options: o}
	parts := []string{v.title(), v.nodes().text(o), v.disks().text(o), v.pairs(), v.findings()}
	var all []string
	for _, p := range parts {
		if p != "" {
			all = append(all, p)
		}
	}
	_, err := io.WriteString(w, strings.Join(all, "\n"))
	return err
}

type view struct {
	Options
	status controller.Status
}

func (v view) title() string {
	pops := map[string]bool{}
	for _, n := range v.status.Nodes {
		pops[n.PoP] = true
	}
	return fmt.Sprintf("fleet %s · %s in %s · %s UTC\n", clean(v.status.Fleet), count(len(v.status.Nodes), "node"),
		count(len(pops), "PoP"), v.status.Time.UTC().Format("2006-01-02 15:04:05"))
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (v view) nodes() table {
	t := table{head: row("POP", "NODE", "ADDRESS", "STATE", "RELEASE", "LUKS", "HEARD", "UP", "UNLOCKED")}
	last := ""
	for _, n := range v.status.Nodes {
		pop := n.PoP
		if pop == last {
			pop = ""
		}
		last = n.PoP
		state := State(n)
		t.add(plain(pop), plain(n.Node), plain(known(n.Address)), cell{state, stateColor[state]}, plain(release(n)), luks(n),
			heard(n), plain(uptime(n)), plain(v.unlocked(n)))
	}
	return t
}

func release(n controller.Node) string {
	if n.Report == nil {
		return unknown
	}
	_, digest, found := strings.Cut(n.Report.Release, ":")
	if !found {
		digest = n.Report.Release
	}
	return known(digest[:min(len(digest), 12)])
}

func luks(n controller.Node) cell {
	switch {
	case n.Report == nil:
		return plain(unknown)
	case n.Report.Host.RootLUKS:
		return cell{"yes", good}
	}
	return cell{"NO", bad}
}

func heard(n controller.Node) cell {
	switch {
	case n.LastReportAgeSec == nil:
		return cell{"never", warn}
	case n.Freshness == controller.Fresh:
		return plain(age(*n.LastReportAgeSec) + " ago")
	}
	return cell{age(*n.LastReportAgeSec) + " ago", bad}
}

func uptime(n controller.Node) string {
	if n.Report == nil || n.Freshness != controller.Fresh {
		return unknown
	}
	return age(n.Report.Host.UptimeSec)
}

func (v view) unlocked(n controller.Node) string {
	u := n.Lock.LastUnlock
	if u == nil {
		return ""
	}
	text := age(v.status.Time.Sub(u.At).Seconds()) + " ago"
	if u.DropbearToUnlocked != nil {
		text += " in " + seconds(*u.DropbearToUnlocked)
	}
	if u.UnlockedToReportSec != nil {
		text += ", report after " + seconds(*u.UnlockedToReportSec)
	}
	return text
}

func (v view) disks() table {
	t := table{head: row("NODE", "SERIAL", "DISK", "KIND", "SIZE", "SMART", "TEMP", "WEAR", "HOURS", "MEDIA ERRORS"), elastic: 2}
	for _, n := range v.status.Nodes {
		if n.Report == nil {
			continue
		}
		for _, d := range n.Report.Disks {
			t.add(plain(n.Node), plain(known(d.Serial)), plain(known(d.Model)), plain(known(d.Kind)), plain(size(d.SizeBytes)),
				verdict(n, d), plain(number("%d °C", d.TemperatureC)), plain(number("%d %%", d.PercentUsed)),
				plain(number("%d", d.PowerOnHours)), plain(number("%d", d.MediaErrors)))
		}
	}
	return t
}

// verdict of a node that does not report is an old one, and says so.
func verdict(n controller.Node, d agents.Disk) cell {
	if n.Freshness == controller.Fresh || n.LastReportAgeSec == nil {
		return cell{known(d.Verdict), verdictColor[d.Verdict]}
	}
	return plain(fmt.Sprintf("%s, %s ago", known(d.Verdict), age(*n.LastReportAgeSec)))
}

// unknown is what is drawn where nothing is known.
const unknown = "–"

func known(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

func number[T any](format string, n *T) string {
	if n == nil {
		return unknown
	}
	return fmt.Sprintf(format, *n)
}

func size(bytes int64) string {
	switch {
	case bytes <= 0:
		return unknown
	case bytes >= 1e12:
		return fmt.Sprintf("%.1f TB", float64(bytes)/1e12)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/1e9)
}

func seconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.1fs", s)
	}
	return age(s)
}

// age is a time in at most two units: 45s, 12m, 3h05m, 4d2h.
func age(sec float64) string {
	d := time.Duration(max(sec, 0) * float64(time.Second)).Round(time.Second)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
