package scripted

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/machine"
)

// disk is one drive. What was installed on two of them at once is a mirror: both hold the same system.
type disk struct {
	Serial    string
	SizeBytes int64
	Foreign   string // somebody else's system, in words; "" is none

	Touched bool   // wiped by an install: what was there is gone
	Marker  string // run id of the install that wiped it
	Written int    // percent, while a mirror is written to it anew; 0 is no longer
	holds   *content
}

// content is what lies on a disk, or on both halves of a mirror. A half that was unplugged for a while is not stale here:
// what resyncs on a real machine is simply the same.
type content struct {
	Complete bool // the boot loader finds it
	Halves   int  // disks it was installed on: 2 is a mirror

	Fleet, Node  string
	UnlockKeys   []string
	PeersFile    string // what its initramfs expects of whom
	PeerLogins   []peerLogin
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
	Agents  map[string]bool // digests of agents that the installation left behind

	KeyBox   []byte            // what operators leave for each other
	Tampered map[string]string // what it boots from, changed by hand: path → content
}

type slot struct {
	kind   string // install, machine, recovery, peers
	secret []byte
}

// opens says whether a passphrase opens any slot.
func (s *content) opens(secret []byte) bool {
	for _, have := range s.Slots {
		if subtle.ConstantTimeCompare(have.secret, secret) == 1 {
			return true
		}
	}
	return false
}

func (d *disk) words() string {
	switch {
	case d.holds.Complete, d.Marker != "":
		return "fleet node " + d.holds.Node
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

// found are the disks of this boot, in the order in which it finds them; mu is held. A machine that is off has all.
func (m *Machine) found() []*disk {
	if m.boot == nil {
		return m.disks
	}
	return order(m.disks, m.boot.given)
}

func order(disks []*disk, b machine.Boot) []*disk {
	var out []*disk
	for i, d := range disks {
		if !slices.Contains(b.MissingDisks, i) {
			out = append(out, d)
		}
	}
	if b.SwapDisks {
		slices.Reverse(out)
	}
	return out
}

// installed is the system of the first disk that has a whole one, else what the first disk has; mu is held. It is never
// nil, and that of a machine without disks is lost.
func (m *Machine) installed() *content {
	all := m.found()
	for _, d := range all {
		if d.holds.Complete {
			return d.holds
		}
	}
	if len(all) == 0 {
		return &content{}
	}
	return all[0].holds
}

// snapshot is a copy of the installed system.
func (m *Machine) snapshot() content {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.installed()
}

// boots says what a start from these disks comes to.
func boots(disks []*disk) stage {
	touched := len(disks) == 0
	for _, d := range disks {
		if d.holds.Complete {
			return locked
		}
		touched = touched || d.Touched
	}
	if touched {
		return dead // half-installed, or nothing there: the firmware finds no boot loader
	}
	return factory
}

// wireDisk describes the i-th disk found.
func (m *Machine) wireDisk(i int, d *disk) wireDisk {
	w := wireDisk{Serial: d.Serial, Model: "Scripted NVMe", SizeBytes: d.SizeBytes, Path: fmt.Sprintf("/dev/nvme%dn1", i), Marker: d.Marker, Content: d.words()}
	if m.cfg.Load().DiskKind == "sata" {
		sum := sha256.Sum256([]byte(d.Serial))
		w.Model, w.Path, w.WWN = "Scripted SSD", fmt.Sprintf("/dev/sd%c", 'a'+i), "naa.5000c50"+hex.EncodeToString(sum[:])[:9]
	}
	return w
}

// wireDisks describes all disks of this boot; mu is held.
func (m *Machine) wireDisks() []wireDisk {
	out := []wireDisk{}
	for i, d := range m.found() {
		out = append(out, m.wireDisk(i, d))
	}
	return out
}
