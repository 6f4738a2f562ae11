package scripted

import (
	"crypto/subtle"

	"golang.org/x/crypto/ssh"
)

// disk is what lies on a disk. With two disks the first holds the truth and the second mirrors the marker.
type disk struct {
	Serial    string
	SizeBytes int64
	Foreign   string // somebody else's system, in words; "" is none

	Touched  bool   // wiped by an install: what was there is gone
	Marker   string // run id of the install that wiped it
	Complete bool   // the boot loader finds a system

	Fleet, Node  string
	UnlockKeys   []string
	UserCA       string
	InitramfsKey ssh.Signer
	SystemKey    ssh.Signer
	LUKSUUID     string
	Slots        []slot
	Sealed       bool
	Network      network

	Items   map[string]string // what was applied: thing → digest
	Release string
	Blobs   map[string]bool
}

type slot struct {
	kind   string // install, machine, recovery
	secret []byte
}

// opens says whether a passphrase opens any slot.
func (d *disk) opens(secret []byte) bool {
	for _, s := range d.Slots {
		if subtle.ConstantTimeCompare(s.secret, secret) == 1 {
			return true
		}
	}
	return false
}

func (d *disk) words() string {
	switch {
	case d.Complete, d.Marker != "":
		return "fleet node " + d.Node
	case d.Foreign != "":
		return d.Foreign
	case d.Touched:
		return "empty"
	}
	return "linux: ext4 debian-12 (provider image)"
}

// PlantForeign puts somebody else's system on a disk, which an install must refuse to wipe.
func (m *Machine) PlantForeign(index int, words string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disks[index].Foreign = words
}
