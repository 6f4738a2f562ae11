package statusview

import (
	"fmt"
	"slices"

	"popfleet/fleet/controller"
)

// maxListed is how many pairs are listed with all their figures; more are drawn as a matrix of round trips.
const maxListed = 30

var pairColor = map[string]color{stateConnected: good, stateStalled: bad, stateNeverConnected: bad, controller.PairUnknown: warn}

// States of a pair, as the replicator calls them.
const (
	stateConnected      = "connected"
	stateStalled        = "stalled"
	stateNeverConnected = "never_connected"
)

var pairWords = map[string]string{stateNeverConnected: "never connected"}

func (v view) pairs() string {
	if len(v.status.Pairs) == 0 {
		return ""
	}
	if len(v.status.Pairs) > maxListed {
		return v.matrix().text(v.Options)
	}
	t := table{head: row("FROM", "TO", "LINK", "RTT", "CLOCK OFFSET", "HEARD", "REPLICATING", "")}
	for _, p := range v.status.Pairs {
		t.add(plain(p.From), plain(p.To), linkWord(p), plain(milliseconds("%.1f ms", p.RTTMs)), plain(milliseconds("%+.1f ms", p.OffsetMs)),
			plain(heardAgo(p.AgeSec)), replicating(p), plain(p.Why))
	}
	return t.text(v.Options)
}

func linkWord(p controller.Pair) cell {
	word := p.State
	if w, ok := pairWords[word]; ok {
		word = w
	}
	return cell{known(word), pairColor[p.State]}
}

func milliseconds(format string, ms *float64) string {
	if ms == nil {
		return unknown
	}
	return fmt.Sprintf(format, *ms)
}

func heardAgo(sec *float64) string {
	if sec == nil {
		return unknown
	}
	return seconds(*sec) + " ago"
}

func replicating(p controller.Pair) cell {
	switch {
	case p.State == controller.PairUnknown:
		return plain(unknown)
	case p.Replicating:
		return cell{"yes", good}
	}
	return cell{"no", warn}
}

// matrix has a row per sender and a column per receiver.
func (v view) matrix() table {
	t := table{head: row("RTT ms, FROM ↓ TO →")}
	cells := map[[2]string]cell{}
	for _, p := range v.status.Pairs {
		c := linkWord(p)
		if p.State == stateConnected {
			c.text = milliseconds("%.1f", p.RTTMs)
		}
		cells[[2]string{p.From, p.To}] = c
	}
	for _, to := range v.status.Nodes {
		t.head = append(t.head, cell{to.Node, head})
	}
	for _, from := range v.status.Nodes {
		line := []cell{plain(from.Node)}
		for _, to := range v.status.Nodes {
			c, ok := cells[[2]string{from.Node, to.Node}]
			if !ok {
				c = plain("·")
			}
			line = append(line, c)
		}
		t.add(line...)
	}
	return t
}

// links are the findings about pairs: those that are not connected though their receiver reports, and that nothing is
// replicated, once for all.
func links(pairs []controller.Pair) (found []Finding) {
	silent := len(pairs) > 0
	for _, p := range pairs {
		silent = silent && !p.Replicating
		if p.State == stateStalled || p.State == stateNeverConnected {
			found = append(found, Finding{Warning, p.To, fmt.Sprintf("link from %s: %s", p.From, linkWord(p).text),
				"fleet ssh " + p.To + " journalctl -u fleet-replicator -n 50"})
		}
	}
	if silent && slices.ContainsFunc(pairs, func(p controller.Pair) bool { return p.State != controller.PairUnknown }) {
		found = append(found, Finding{Note, "", "no pair replicates: what is written on a node stays on that node", ""})
	}
	return found
}
