package core

import "fmt"

var steps = [...]string{"waiting", "loading", "storing", "burying", "removing", "uncertain", "verifying", "logging", "acking"}

// Steps names where this node's open writes are, for whoever crashes it.
func (m *Machine) Steps() []string {
	out := make([]string, 0, len(m.jobs))
	for _, j := range m.sortedJobs() {
		out = append(out, [...]string{"client ", "peer ", "reissue ", "sweep ", "reader "}[j.kind]+steps[j.phase])
	}
	return out
}

// Describe is the machine in a line, for people.
func (m *Machine) Describe() string {
	return fmt.Sprintf("node %d: phase %d, have %v, durable %v, applied %v, low %v, jobs %v, appends %d", m.cfg.Self, m.phase,
		m.have, m.durable, m.applied, m.low, m.Steps(), len(m.appends))
}
