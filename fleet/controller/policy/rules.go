package policy

import (
	"fmt"
	"slices"
	"time"
)

// Names of the rules, as findings carry them.
const (
	RuleKillSwitch = "kill-switch"
	RuleHostKey    = "host-key"
	RuleSuspect    = "suspect"
	RuleRestarts   = "restarts"
	RuleAwaited    = "awaited"
	RuleProvider   = "provider"
)

func hold(rule, format string, args ...any) Finding {
	return Finding{Rule: rule, Decision: Hold, Why: fmt.Sprintf(format, args...)}
}

func pass(rule, why string) Finding { return Finding{Rule: rule, Decision: Allow, Why: why} }

// forbidden is the kill switch. Nothing lifts it but taking it back.
func forbidden(_ Settings, f Facts) Finding {
	const rule = RuleKillSwitch
	if !f.Never.Holds(f.Now) {
		return pass(rule, "")
	}
	why := "never to be unlocked, says " + f.Never.By
	if f.Never.Why != "" {
		why += ": " + f.Never.Why
	}
	return Finding{Rule: rule, Decision: Never, Why: why}
}

// hostKey is the pinned key of the node's initramfs. Another one is an alarm, and no approval makes it the right one.
func hostKey(_ Settings, f Facts) Finding {
	const rule = RuleHostKey
	if f.Shown != "" && slices.Contains(f.Pinned, f.Shown) {
		return pass(rule, "")
	}
	shown := f.Shown
	if shown == "" {
		shown = "none"
	}
	found := hold(rule, "it shows host key %s, pinned is %v", shown, f.Pinned)
	found.Final = true
	return found
}

// suspect: at its last boot the node was not what it should have been. Whoever changed what it boots from could have
// the key that it is given next.
func suspect(_ Settings, f Facts) Finding {
	const rule = RuleSuspect
	if f.Suspect == nil {
		return pass(rule, "")
	}
	return hold(rule, "it is suspect since %s: %s", f.Suspect.Since.UTC().Format(time.RFC3339), f.Suspect.Why)
}

// restarts holds a machine that restarts again and again: something is broken, or somebody is trying things.
func restarts(s Settings, f Facts) Finding {
	const rule = RuleRestarts
	if f.Asker == Controller && f.UnlocksInHour >= s.UnlocksPerHour {
		return hold(rule, "it was unlocked %d times within an hour", f.UnlocksInHour)
	}
	return pass(rule, "")
}

// awaited guards against a disk that was carried away and is booted elsewhere later, and against a machine that
// somebody works on at the provider: both need time (the rule of Mandos).
func awaited(s Settings, f Facts) Finding {
	const rule = RuleAwaited
	if f.Asker == Operator {
		return pass(rule, f.Who+" asked for it")
	}
	if !f.ExpectedUntil.IsZero() && !f.FirstSeen.After(f.ExpectedUntil) {
		return pass(rule, "its reboot was expected")
	}
	last, how := f.LastHeard, "its agent reported"
	if f.LastAlive.After(last) {
		last, how = f.LastAlive, "it was seen running"
	}
	if last.IsZero() {
		return hold(rule, "nothing was ever heard of it, and no reboot was expected")
	}
	silent := max(f.FirstSeen.Sub(last), 0).Round(time.Second)
	if silent <= s.RecentlyAlive {
		return pass(rule, fmt.Sprintf("%s %s before it was seen locked", how, silent))
	}
	return hold(rule, "it was silent for %s before it was seen locked (more than %s), and no reboot was expected", silent, s.RecentlyAlive)
}

// crossCheck compares what the provider says happened to the machine since its last good boot with what we did.
func crossCheck(s Settings, f Facts) Finding {
	const rule = RuleProvider
	p := f.Provider
	switch {
	case !p.Done && s.CrossCheck == Required:
		return hold(rule, "its provider could not be asked what happened to it, which this fleet requires: %s", p.words())
	case !p.Done:
		return pass(rule, "not cross-checked with its provider: "+p.words())
	case len(p.Foreign) > 0:
		return hold(rule, "its provider's log has what this fleet did not do: %s", list(p.Foreign))
	}
	return pass(rule, "")
}
