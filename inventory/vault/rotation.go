package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"popfleet/internal/strictjson"
	"popfleet/inventory"
)

// RotationPhase says how far a rotation of a machine key is.
type RotationPhase string

// The phases. In every one of them, and across a crash between any two, Rotation.Current opens the disk: a new key
// becomes current only after the machine proved that it opens, and an old one is destroyed only after that was written.
const (
	RotationIdle     RotationPhase = ""
	RotationAdding   RotationPhase = "adding"   // Next may or may not be in a slot yet
	RotationRetiring RotationPhase = "retiring" // Previous may or may not be in a slot still
)

// Rotation is the machine key of one node and how far its exchange is.
type Rotation struct {
	Generation int // grows when another key becomes current
	Phase      RotationPhase
	Current    inventory.Secret
	Next       inventory.Secret // while adding
	Previous   inventory.Secret // while retiring
}

// ErrRotated means that somebody else took the rotation on in the meantime: look again.
var ErrRotated = errors.New("the rotation of this key has gone on elsewhere")

// storedDisk is nodes/NODE/disk.age. It exists from the first rotation on; before, keys.age has the machine key.
type storedDisk struct {
	Generation int    `json:"generation"`
	Current    string `json:"current"`
	Next       string `json:"next,omitempty"`
	Previous   string `json:"previous,omitempty"`
}

func (s storedDisk) rotation() Rotation {
	r := Rotation{Generation: s.Generation, Current: inventory.SecretText(s.Current), Next: inventory.SecretText(s.Next),
		Previous: inventory.SecretText(s.Previous)}
	switch {
	case s.Next != "":
		r.Phase = RotationAdding
	case s.Previous != "":
		r.Phase = RotationRetiring
	}
	return r
}

const diskFile = "disk.age"

// MachineKey returns the machine key of the node called name and the state of its rotation.
func (v *Vault) MachineKey(name string) (Rotation, error) {
	k, err := v.Node(name) // generates the keys of a new node
	if err != nil {
		return Rotation{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s, found, err := v.disk(name)
	if err != nil || found {
		return s.rotation(), err
	}
	return Rotation{Current: k.MachineKey}, nil
}

// BeginRotation makes the next machine key of the node called name, on disk before it is returned. A rotation that was
// begun before is returned as it is: go on with it.
func (v *Vault) BeginRotation(name string) (Rotation, error) {
	return v.rotate(name, func(s *storedDisk) error {
		if s.Next == "" && s.Previous == "" {
			s.Next = newDiskKey()
		}
		return nil
	})
}

// CommitRotation makes the next key of the rotation in generation g the current one. Call it when the machine has
// proven that the key opens its disk, and that this will outlive a power cut.
func (v *Vault) CommitRotation(name string, g int) (Rotation, error) {
	return v.rotate(name, func(s *storedDisk) error {
		if s.Generation != g || s.Next == "" {
			return fmt.Errorf("node %s: %w", name, ErrRotated)
		}
		s.Generation, s.Previous, s.Current, s.Next = g+1, s.Current, s.Next, ""
		return nil
	})
}

// EndRotation forgets the previous key. Call it when the machine has proven that it opens nothing any more.
func (v *Vault) EndRotation(name string, g int) (Rotation, error) {
	return v.rotate(name, func(s *storedDisk) error {
		if s.Generation != g || s.Next != "" {
			return fmt.Errorf("node %s: %w", name, ErrRotated)
		}
		s.Previous = ""
		return nil
	})
}

// box is what one copy of this vault leaves for the others, wherever they are: the node keeps it for them.
type box struct {
	Generation int    `json:"generation"`
	Current    string `json:"current"`
	Proven
}

// Proven is a boot that was believed, and after which the key was exchanged.
type Proven struct {
	BootID   string `json:"boot_id"`
	Manifest string `json:"manifest"`
}

const boxName = "machine-key.box"

// SealMachineKey seals the current machine key of r, and what was proven, for other copies of this vault; whoever
// carries it can neither read nor forge it.
func (v *Vault) SealMachineKey(name string, r Rotation, p Proven) ([]byte, error) {
	if err := checkName("node", name); err != nil {
		return nil, err
	}
	return v.sealValue(nodeFile(name, boxName), box{r.Generation, string(r.Current.Reveal()), p})
}

// AdoptMachineKey takes the key that another copy of this vault sealed, when it is of a later generation than ours. A
// rotation that was begun here and not committed is given up: its next key is in no slot, or the other copy could not
// have gone on. It returns what the other copy had proven.
func (v *Vault) AdoptMachineKey(name string, sealed []byte) (p Proven, r Rotation, err error) {
	if err := checkName("node", name); err != nil {
		return p, r, err
	}
	body, err := v.files.open(nodeFile(name, boxName), sealed)
	if err != nil {
		return p, r, fmt.Errorf("sealed machine key of %s: %w", name, err)
	}
	var b box
	if err := strictjson.Decode(body, &b); err != nil {
		return p, r, fmt.Errorf("sealed machine key of %s: %w", name, err)
	}
	r, err = v.rotate(name, func(s *storedDisk) error {
		if b.Generation > s.Generation && b.Current != "" {
			*s = storedDisk{Generation: b.Generation, Current: b.Current}
		}
		return nil
	})
	return b.Proven, r, err
}

// rotate changes the stored key under the node's lock, so that two processes never make two next keys.
func (v *Vault) rotate(name string, change func(*storedDisk) error) (Rotation, error) {
	before, err := v.MachineKey(name)
	if err != nil {
		return Rotation{}, err
	}
	var after Rotation
	err = v.exclusive(name, func() error {
		s, found, err := v.disk(name)
		if err != nil {
			return err
		}
		if !found {
			s.Current = string(before.Current.Reveal())
		}
		was := s
		if err := change(&s); err != nil {
			return err
		}
		after = s.rotation()
		if s == was && found {
			return nil
		}
		return v.put(nodeFile(name, diskFile), s)
	})
	return after, err
}

// rotated puts the current machine key in place of the first one.
func (v *Vault) rotated(name string, s *storedNode) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, found, err := v.disk(name)
	if found {
		s.MachineKey = d.Current
	}
	return err
}

// disk reads disk.age; v.mu is held.
func (v *Vault) disk(name string) (s storedDisk, found bool, err error) {
	err = v.get(nodeFile(name, diskFile), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return storedDisk{}, false, nil
	}
	return s, err == nil, err
}

// exclusive runs f as the only one that changes this node's files, in all processes on this folder. The lock is on the
// node's directory and ends with the process.
func (v *Vault) exclusive(name string, f func() error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir := filepath.Join(v.path("nodes"), name)
	if err := mkdirSynced(dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() // lets go of the lock
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if err == nil {
			return f()
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock %s: %w", dir, err)
		}
	}
}
