package lifecycle

import (
	"fmt"
	"strings"
	"time"

	"popfleet/internal/pace"
	"popfleet/provision/provider"
)

// Op names an operation.
type Op string

// The operations, in the order of a node's life.
const (
	OpRent        Op = "rent"
	OpEnterRescue Op = "enter-rescue"
	OpInstall     Op = "install"
	OpBootDisk    Op = "boot-disk"
	OpWaitAnswer  Op = "wait-answer"
	OpUnlock      Op = "unlock"
	OpWaitSystem  Op = "wait-system"
	OpProveBoot   Op = "prove-boot" // after every boot of a sealed node; in no plan
	OpRotateKey   Op = "rotate-key" // likewise
	OpRenewBoot   Op = "renew-boot" // when a package run changed what it boots from; in no plan
	OpSeal        Op = "seal"
	OpConverge    Op = "converge"
	OpWaitServing Op = "wait-serving"
	OpWipe        Op = "wipe"
)

// Operation is one step of a plan.
type Operation struct {
	Op       Op
	Node     string
	Text     string        // what it will do, for people
	Erases   bool          // it destroys data
	Deadline time.Duration // scaled to the kind of machine
}

// Describe is one line for people.
func (o Operation) Describe() string { return fmt.Sprintf("%s: %s: %s", o.Node, o.Op, o.Text) }

// Done says whether an observation proves that the operation has nothing left to do.
func (o Operation) Done(seen Observation) bool {
	done := map[Op][]Stage{
		OpRent:        {Rented, Rescue, Locked, Booted, Sealed, Converged, Serving, Silent},
		OpEnterRescue: {Rescue, Locked, Booted, Sealed, Converged, Serving},
		OpWaitAnswer:  {Rescue, Locked, Booted, Sealed, Converged, Serving},
		OpUnlock:      {Booted, Sealed, Converged, Serving},
		OpWaitSystem:  {Booted, Sealed, Converged, Serving},
		OpSeal:        {Sealed, Converged, Serving},
		OpConverge:    {Converged, Serving},
		OpWaitServing: {Serving},
	}
	switch o.Op {
	case OpInstall:
		return seen.Installed
	case OpBootDisk:
		return seen.Installed && (seen.Stage == Locked || OpWaitSystem.done(seen.Stage, done))
	}
	return o.Op.done(seen.Stage, done)
}

func (o Op) done(s Stage, table map[Op][]Stage) bool {
	for _, after := range table[o] {
		if s == after {
			return true
		}
	}
	return false
}

// Want is how far a node is to be brought and at which pace its machine works.
type Want struct {
	Node     Node
	Image    string // digest, for the text of the plan
	Converge bool   // false: stop at sealed
	Serve    bool   // converged is not enough
	Pace     pace.Pace
}

// Plan lists what takes a node from what was seen to what is wanted, empty when nothing. It reads nothing else, so a
// plan can be printed, tested and believed.
func Plan(w Want, seen Observation) []Operation {
	var ops []Operation
	for _, op := range remaining(w, seen) {
		ops = append(ops, w.operation(op, seen))
	}
	return ops
}

// remaining picks the operations by stage: each stage enters the same sequence at its own place.
func remaining(w Want, seen Observation) []Op {
	system := w.tail(OpSeal, OpConverge)
	boot := append([]Op{OpUnlock, OpWaitSystem}, system...)
	if seen.Installed && seen.state.Sealed {
		boot = append([]Op{OpUnlock, OpWaitSystem}, w.tail(OpConverge)...)
	}
	fresh := append([]Op{OpInstall, OpBootDisk}, boot...)
	switch seen.Stage {
	case Absent:
		return append([]Op{OpRent, OpEnterRescue}, fresh...)
	case Rented:
		if seen.Installed { // it is off, or was started by somebody a moment ago
			return append([]Op{OpBootDisk}, boot...)
		}
		return append([]Op{OpEnterRescue}, fresh...)
	case Rescue:
		if seen.Installed {
			return append([]Op{OpBootDisk}, boot...)
		}
		return fresh
	case Silent:
		if seen.after == OpUnlock {
			return boot[1:]
		}
		return append([]Op{OpWaitAnswer}, boot...)
	case Locked:
		return boot
	case Booted:
		return system
	case Sealed:
		if seen.Asked && len(seen.Changes) == 0 {
			return nil
		}
		return w.tail(OpConverge)
	case Converged:
		return w.tail()
	}
	return nil // serving; or unknown and quarantined, which the caller reports
}

// tail is ops without what is not wanted, and the wait for service at its end.
func (w Want) tail(ops ...Op) []Op {
	var out []Op
	for _, op := range ops {
		if op != OpConverge || w.Converge {
			out = append(out, op)
		}
	}
	if w.Converge && w.Serve {
		out = append(out, OpWaitServing)
	}
	return out
}

// deadlines at the pace of a real machine. Sources: facts/machines.md (measured path, provider waits).
var deadlines = map[Op]time.Duration{
	OpRent:        10 * time.Minute,
	OpEnterRescue: 6 * time.Minute, // two boots of 90 s and a power cycle
	OpInstall:     15 * time.Minute,
	OpBootDisk:    4 * time.Minute,
	OpWaitAnswer:  4 * time.Minute,
	OpUnlock:      3 * time.Minute,
	OpWaitSystem:  4 * time.Minute,
	OpProveBoot:   2 * time.Minute,
	OpRotateKey:   3 * time.Minute,
	OpRenewBoot:   2 * time.Minute,
	OpSeal:        2 * time.Minute,
	OpConverge:    10 * time.Minute,
	OpWaitServing: 2 * time.Minute,
	OpWipe:        2 * time.Minute,
}

func (w Want) operation(op Op, seen Observation) Operation {
	return Operation{
		Op: op, Node: w.Node.Name, Text: w.text(op, seen), Deadline: w.slowness().Of(deadlines[op]),
		Erases: op == OpInstall || op == OpWipe,
	}
}

// dedicatedSlowness: firmware, memory tests and disks that spin up make a dedicated machine's restart last two to six
// minutes where a virtual one takes half of one (facts: Robot rescue up to 5 min 30 s).
const dedicatedSlowness = 4

// slowness scales deadlines by the kind of machine.
func (w Want) slowness() pace.Pace {
	if w.Node.Machine.Dedicated() {
		return w.Pace * dedicatedSlowness
	}
	return w.Pace
}

func (w Want) text(op Op, seen Observation) string {
	m := w.Node.Machine
	switch op {
	case OpRent:
		if m.Dedicated() {
			return "take over dedicated server " + m.Server
		}
		return strings.TrimSpace(fmt.Sprintf("rent a %s in %s", m.ServerType, m.Location))
	case OpEnterRescue:
		if m.Provider == provider.HetznerRobot {
			return "boot the provider's rescue system, known by the host keys that the provider publishes (api)"
		}
		return "boot the provider's rescue system; its host key cannot be known beforehand (tofu)"
	case OpInstall:
		return w.installText(seen)
	case OpBootDisk:
		return "boot the installed disk and wait for the unlock port"
	case OpWaitAnswer:
		return "nothing answers: wait for it to boot, then reset it once"
	case OpUnlock:
		return "hand over the disk key to the pinned initramfs"
	case OpWaitSystem:
		return "wait for the system to answer with its pinned host key"
	case OpProveBoot:
		return "compare what it booted from with what was recorded"
	case OpRotateKey:
		return "exchange its machine key"
	case OpRenewBoot:
		return "record what its package manager made it boot from"
	case OpSeal:
		return "give it its lasting disk keys and host keys, destroy the install key"
	case OpConverge:
		return convergeText(seen)
	case OpWipe:
		return "destroy every key slot of its disks, and prove it"
	}
	return "wait until it serves"
}

func (w Want) installText(seen Observation) string {
	disks := "every fixed disk"
	if s := w.Node.Machine.Disks.Serials; len(s) > 0 {
		disks = "disk " + strings.Join(s, ", ")
	}
	if seen.Pending {
		return fmt.Sprintf("go on with installation %s on %s", seen.state.InstallRun, disks)
	}
	image := "the base image"
	if w.Image != "" {
		image = fmt.Sprintf("image %.12s", w.Image)
	}
	return fmt.Sprintf("ERASE %s and install %s, encrypted", disks, image)
}

func convergeText(seen Observation) string {
	switch {
	case !seen.Asked:
		return "bring it to its spec"
	case len(seen.Changes) == 1:
		return "change " + seen.Changes[0]
	}
	const named = 4 // the plan lists every one of them below
	list := strings.Join(seen.Changes[:min(named, len(seen.Changes))], "; ")
	if len(seen.Changes) > named {
		list += "; …"
	}
	return fmt.Sprintf("make %d changes: %s", len(seen.Changes), list)
}
