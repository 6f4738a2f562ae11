package scripted

import (
	"bytes"
	"fmt"
	"slices"

	"popfleet/lab/faults"
)

type rotateSpec struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	Step    string `json:"step"`
	Current []byte `json:"current"`
	Other   []byte `json:"other"`
	Box     []byte `json:"box"`
}

type keyBox struct {
	Box []byte `json:"box,omitempty"`
}

// keyBox keeps what one operator leaves for others, and shows it.
func (x *exchange) keyBox(given keyBox) (any, error) {
	if x.s.link != "system" {
		return nil, &remoteError{"wrong_node", "this machine does not run an installed system", ""}
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on := x.m.installed()
	if len(given.Box) > 0 {
		on.KeyBox = given.Box
	}
	return keyBox{on.KeyBox}, nil
}

type rotated struct {
	Slots []string `json:"slots"`
	Slot  int      `json:"slot"`
}

// rotate adds or destroys a machine key, one of which must open. A machine key that was not named is not touched.
func (x *exchange) rotate(r rotateSpec) (any, error) {
	if err := x.booted(r.Node); err != nil {
		return nil, err
	}
	if r.Version != 1 || len(r.Current) < 32 || len(r.Other) < 32 || bytes.Equal(r.Current, r.Other) || r.Step != "add" && r.Step != "retire" {
		return nil, &remoteError{"bad_spec", "rotate spec: not understood", ""}
	}
	if err := x.mayRotate(r); err != nil {
		return nil, err
	}
	if !x.step(r.Step+" key") || x.lostPower(r.Step) {
		return nil, errNoPower
	}
	out := x.exchangeKey(r)
	if x.lostPower(map[string]string{"add": "added", "retire": "retired"}[r.Step]) {
		return nil, errNoPower
	}
	return out, nil
}

// lostPower: the machine restarts right now, if a fault says so.
func (x *exchange) lostPower(when string) bool {
	if !x.m.fault(faults.SpontaneousBoot, when) {
		return false
	}
	x.m.b.spawn(func() { x.m.reboot(x.bt) })
	return true
}

func (x *exchange) mayRotate(r rotateSpec) error {
	d := x.m.snapshot()
	current := false
	for _, s := range d.Slots {
		switch {
		case s.kind != "machine":
		case bytes.Equal(s.secret, r.Current):
			current = true
		case !bytes.Equal(s.secret, r.Other):
			return &remoteError{"foreign_slot", "a slot holds a key that was not named", ""}
		}
	}
	if !current {
		return &remoteError{"stale_key", "the machine key given opens no machine slot", ""}
	}
	return nil
}

func (x *exchange) exchangeKey(r rotateSpec) rotated {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on := x.m.installed()
	kept := slices.DeleteFunc(slices.Clone(on.Slots), func(s slot) bool { return bytes.Equal(s.secret, r.Other) })
	if r.Step == "add" {
		kept = append(kept, slot{"machine", slices.Clone(r.Other)})
	}
	on.Slots = kept
	if len(r.Box) > 0 {
		on.KeyBox = r.Box
	}
	out := rotated{Slot: 1}
	for i, s := range kept {
		out.Slots = append(out.Slots, fmt.Sprintf("%d %s", i, s.kind))
	}
	return out
}

// Slots counts the key slots of the installed system by kind: install, machine, recovery.
func (m *Machine) Slots() map[string]int {
	out := map[string]int{}
	d := m.snapshot()
	for _, s := range d.Slots {
		out[s.kind]++
	}
	return out
}
