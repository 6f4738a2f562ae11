package statusview

import (
	"popfleet/agents"
	"popfleet/fleet/controller"
)

// States of a node, in words.
const (
	Serving     = "serving"
	Draining    = "draining"
	Drained     = "drained"
	Degraded    = "degraded" // it reports, and a service of it is not healthy
	Running     = "running"  // it reports, and nothing of what it should serve
	Locked      = "locked"
	Unlocking   = "unlocking"
	HeldState   = "held"
	Alarm       = "held, ALARM"
	Late        = "late"
	Unreachable = "unreachable"
	Never       = "never reported"
)

var stateColor = map[string]color{
	Serving: good, Draining: warn, Drained: warn, Degraded: bad, Running: warn, Locked: warn, Unlocking: warn, HeldState: bad,
	Alarm: bad, Late: warn, Unreachable: bad, Never: warn,
}

var verdictColor = map[string]color{agents.DiskOK: good, agents.DiskWarn: warn, agents.DiskFailing: bad, agents.DiskUnsupported: warn}

// State says how a node is, in words: what keeps it from serving first.
func State(n controller.Node) string {
	switch n.Lock.State {
	case controller.Held:
		if n.Lock.Alarm {
			return Alarm
		}
		return HeldState
	case controller.Locked:
		return Locked
	case controller.Unlocking:
		return Unlocking
	}
	switch n.Freshness {
	case controller.Never:
		return Never
	case controller.Late:
		return Late
	case controller.Unreachable:
		return Unreachable
	}
	return reported(n.Report)
}

// reported is a fresh node's state by its own services.
func reported(r *agents.Report) string {
	if r == nil || len(r.Services) == 0 {
		return Running
	}
	state := Serving
	for _, s := range r.Services {
		switch {
		case !s.Healthy:
			return Degraded
		case s.State == Drained, s.State == Draining && state == Serving:
			state = s.State
		}
	}
	return state
}
