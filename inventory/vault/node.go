package vault

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"popfleet/inventory"
)

// NodeKeys are one node's secrets.
//
// InstallKey, MachineKey and RecoveryKey are passphrases: exactly the revealed bytes go into the LUKS slot and on
// stdin, without newline. The first two are 32 random bytes as 44 characters of standard base64, because the way to
// the slot (cryptroot-unlock's FIFO, a console) is made for text: a NUL or newline byte would cut a raw key short.
type NodeKeys struct {
	InstallKey       inventory.Secret // opens the only slot until the node is sealed
	MachineKey       inventory.Secret // opens the disk at every boot; the current one, see [Vault.BeginRotation]
	RecoveryKey      inventory.Secret // for a person at a console, see newRecoveryKey
	InitramfsHostKey KeyPair
	SystemHostKey    KeyPair
}

type storedNode struct {
	InstallKey       string    `json:"install_key"`
	MachineKey       string    `json:"machine_key"`
	RecoveryKey      string    `json:"recovery_key"`
	InitramfsHostKey storedKey `json:"initramfs_host_key"`
	SystemHostKey    storedKey `json:"system_host_key"`
}

// Node returns the keys of the node called name. The first call generates them; they are synced to disk before they
// are returned, so no disk is ever encrypted with a key that a crash could lose.
func (v *Vault) Node(name string) (*NodeKeys, error) {
	if err := checkName("node", name); err != nil {
		return nil, err
	}
	s, err := once(v, nodeFile(name, "keys.age"), func() (storedNode, error) { return newStoredNode(v.fleet, name) })
	if err != nil {
		return nil, fmt.Errorf("keys of node %s: %w", name, err)
	}
	if err := v.rotated(name, &s); err != nil {
		return nil, fmt.Errorf("keys of node %s: %w", name, err)
	}
	return &NodeKeys{
		InstallKey:       inventory.SecretText(s.InstallKey),
		MachineKey:       inventory.SecretText(s.MachineKey),
		RecoveryKey:      inventory.SecretText(s.RecoveryKey),
		InitramfsHostKey: s.InitramfsHostKey.pair(),
		SystemHostKey:    s.SystemHostKey.pair(),
	}, nil
}

func newStoredNode(fleet, name string) (storedNode, error) {
	initramfs, err := newStoredKey(fleet + " " + name + " initramfs")
	if err != nil {
		return storedNode{}, err
	}
	system, err := newStoredKey(fleet + " " + name + " system")
	if err != nil {
		return storedNode{}, err
	}
	return storedNode{
		InstallKey:       newDiskKey(),
		MachineKey:       newDiskKey(),
		RecoveryKey:      newRecoveryKey(),
		InitramfsHostKey: initramfs,
		SystemHostKey:    system,
	}, nil
}

// Passphrase returns a random passphrase for a machine's use, such as "stack" for the encryption of Pulumi's state; made
// on the first call, 44 characters.
func (v *Vault) Passphrase(use string) (inventory.Secret, error) {
	if err := checkName("passphrase", use); err != nil {
		return inventory.Secret{}, err
	}
	s, err := once(v, "passphrases/"+use+".age", func() (string, error) { return newDiskKey(), nil })
	return inventory.SecretText(s), err
}

func newDiskKey() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the program instead
	return base64.StdEncoding.EncodeToString(key[:])
}

// recoveryAlphabet holds letters that lie on the same keys of QWERTY, QWERTZ and AZERTY keyboards (the initramfs
// console knows only the first) and do not look alike. 40 of them are 163 bits.
const recoveryAlphabet = "bcdefghjknprstuvx"

// newRecoveryKey is 8 groups of 5 letters with one space between; the spaces are part of the passphrase.
func newRecoveryKey() string {
	groups := make([]string, 8)
	for i := range groups {
		groups[i] = randomLetters(5)
	}
	return strings.Join(groups, " ")
}

func randomLetters(n int) string {
	const unbiased = 256 / len(recoveryAlphabet) * len(recoveryAlphabet)
	out := make([]byte, 0, n)
	var b [1]byte
	for len(out) < n {
		_, _ = rand.Read(b[:])
		if int(b[0]) < unbiased {
			out = append(out, recoveryAlphabet[int(b[0])%len(recoveryAlphabet)])
		}
	}
	return string(out)
}

// NodeState is what was learnt about a node and must outlive a run. Host keys are authorized_keys lines.
type NodeState struct {
	Provider         string   `json:"provider,omitempty"`
	ServerID         string   `json:"server_id,omitempty"`
	Addresses        []string `json:"addresses,omitempty"`
	InstallRun       string   `json:"install_run,omitempty"` // marker left on the disks
	Image            string   `json:"image,omitempty"`       // sha256 of the image it was installed from
	DiskSerials      []string `json:"disk_serials,omitempty"`
	LUKSUUID         string   `json:"luks_uuid,omitempty"`
	RescueHostKey    string   `json:"rescue_host_key,omitempty"`    // of the rescue system it was installed from
	RescueOrigin     string   `json:"rescue_origin,omitempty"`      // how that key became known: api, planted, tofu
	InitramfsHostKey string   `json:"initramfs_host_key,omitempty"` // in force: made on the node, the vault's from sealing on
	SystemHostKey    string   `json:"system_host_key,omitempty"`    // likewise
	BootID           string   `json:"boot_id,omitempty"`            // last boot seen healthy
	Sealed           bool     `json:"sealed,omitempty"`             // lasting keys are in place, install slot destroyed
	Quarantine       *Order   `json:"quarantine,omitempty"`         // a person's word: nothing of ours touches it
}

// NodeState returns what is known of the node called name; the zero value when nothing is.
func (v *Vault) NodeState(name string) (NodeState, error) {
	var s NodeState
	if err := checkName("node", name); err != nil {
		return s, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.get(nodeFile(name, "state.age"), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return NodeState{}, nil
	}
	return s, err
}

// SetNodeState replaces what is known of the node called name; it is synced when SetNodeState returns.
func (v *Vault) SetNodeState(name string, s NodeState) error {
	if err := checkName("node", name); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.put(nodeFile(name, "state.age"), s)
}

func nodeFile(name, file string) string { return "nodes/" + name + "/" + file }

// Nodes lists the nodes that something is kept of, sorted.
func (v *Vault) Nodes() ([]string, error) {
	entries, err := os.ReadDir(v.path("nodes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && checkName("node", e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

const forgottenPrefix = ".forgotten-"

// Forget deletes the keys, the state and the certificates of the node called name; the next [Vault.Node] makes fresh
// ones. Call it only after every key slot of the node was proven wiped, or when its disk is given up: without these
// keys the disk cannot be read. Keys and state go by one rename, never one without the other. Unknown is no error.
func (v *Vault) Forget(name string) error {
	if err := checkName("node", name); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	nodes := v.path("nodes")
	gone := filepath.Join(nodes, forgottenPrefix+name)
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(nodes, name), gone)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		err = errors.Join(syncDir(nodes), os.RemoveAll(gone))
	} else {
		err = nil
	}
	return errors.Join(err, v.forgetLeaves(name))
}

// sweepForgotten finishes a Forget that was interrupted.
func (v *Vault) sweepForgotten() error {
	left, err := filepath.Glob(v.path("nodes/" + forgottenPrefix + "*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
