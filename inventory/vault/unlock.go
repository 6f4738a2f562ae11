package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// UnlockState is what was said and learnt about handing a node its key. It has a file of its own, changed only by
// [Vault.UpdateUnlock], because a controller and commands change it side by side.
type UnlockState struct {
	Never    *Order     `json:"never,omitempty"`    // the kill switch: nobody unlocks it
	Approval *Order     `json:"approval,omitempty"` // a person's word, good for one unlocking
	Used     time.Time  `json:"used,omitzero"`      // when the approval that was used last was given
	Expected *Order     `json:"expected,omitempty"` // the fleet has the node reboot
	Good     *GoodBoot  `json:"good,omitempty"`     // last boot that was proven
	Suspect  *Suspicion `json:"suspect,omitempty"`
}

// Order is what somebody said of a node.
type Order struct {
	By    string    `json:"by"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"` // zero: until it is taken back
	Why   string    `json:"why,omitempty"`
}

// Holds says whether the order is in force at t.
func (o *Order) Holds(t time.Time) bool {
	return o != nil && (o.Until.IsZero() || !t.After(o.Until))
}

// GoodBoot is a boot after which the node showed its own keys and booted from what was recorded.
type GoodBoot struct {
	Install  string            `json:"install"` // the installation it speaks of
	At       time.Time         `json:"at"`
	BootID   string            `json:"boot_id"`
	Manifest string            `json:"manifest"`        // digest
	Files    map[string]string `json:"files,omitempty"` // path → sha256, to say what changed
	// Changing is the boot in which a command of ours began to change what the node boots from, until that is recorded.
	Changing string `json:"changing,omitempty"`
	// Rotated is the boot after which the machine key was exchanged last.
	Rotated string `json:"rotated,omitempty"`
	// Declared is the last manifest that a package run on the node declared and that was judged, believed or not.
	Declared string `json:"declared,omitempty"`
}

// Suspicion is why a node is not believed any more.
type Suspicion struct {
	Install  string            `json:"install"`
	Since    time.Time         `json:"since"`
	Why      string            `json:"why"`
	BootID   string            `json:"boot_id,omitempty"`
	Manifest string            `json:"manifest,omitempty"`
	Files    map[string]string `json:"files,omitempty"`
}

const unlockFile = "unlock.age"

// UnlockState returns what is known about unlocking the node called name; the zero value when nothing is.
func (v *Vault) UnlockState(name string) (UnlockState, error) {
	if err := checkName("node", name); err != nil {
		return UnlockState{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unlockState(name)
}

func (v *Vault) unlockState(name string) (s UnlockState, err error) {
	err = v.get(nodeFile(name, unlockFile), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return UnlockState{}, nil
	}
	return s, err
}

// UpdateUnlock changes what is known about unlocking the node called name, alone among all processes on this folder; it
// is synced when UpdateUnlock returns. An error of change leaves everything as it was.
func (v *Vault) UpdateUnlock(name string, change func(*UnlockState) error) (s UnlockState, err error) {
	if err := checkName("node", name); err != nil {
		return s, err
	}
	err = v.exclusive(name, func() error {
		if s, err = v.unlockState(name); err != nil {
			return err
		}
		if err := change(&s); err != nil {
			return err
		}
		return v.put(nodeFile(name, unlockFile), s)
	})
	if err != nil {
		return s, fmt.Errorf("unlock state of %s: %w", name, err)
	}
	return s, nil
}
