// Package facts is what a machine says of itself to the operator: where it is in its life, its disks, its network. It
// only reads: /sys, /proc, a few files. What it can't learn is left empty, except for what others rely on to act
// (disks, boot id), where it fails.
package facts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// Host is the machine looked at; Root is "" outside of tests.
type Host struct{ Root string }

// Identity is /etc/fleet/node.json (docs/protocols/node.md).
type Identity struct {
	Fleet  string `json:"fleet"`
	Node   string `json:"node"`
	PoP    string `json:"pop,omitempty"`
	Domain string `json:"domain,omitempty"`
	Run    string `json:"run"`
}

// Files of a node, relative to its root.
const (
	IdentityFile = "/etc/fleet/node.json"
	SealedFile   = "/etc/fleet/sealed"
	// BootChangedFile holds the digest of what the last package run of this boot that changed it left to boot from.
	BootChangedFile = "/run/fleet-boot/changed"
)

// Gather looks at everything.
func (h Host) Gather(_ context.Context) (spec.Facts, error) {
	bootID, err := h.BootID()
	if err != nil {
		return spec.Facts{}, err
	}
	disks, err := disk.Host{Root: h.Root}.List()
	if err != nil {
		return spec.Facts{}, err
	}
	rescue, _ := h.Rescue()
	f := spec.Facts{
		Rescue:    rescue,
		Hostname:  h.Hostname(),
		BootID:    bootID,
		Firmware:  h.Firmware(),
		MemoryMB:  h.memoryMB(),
		Disks:     disks,
		Sealed:    h.exists(SealedFile),
		UnixMilli: time.Now().UnixMilli(),
		RootLUKS:  h.RootLUKS() == nil,
		Release:   h.release(),
		// Left by the door of the initramfs, whose /run goes on as the system's.
		SpentShares: h.number("run/fleet-door/spent"),
		BootChanged: h.BootChanged(),
	}
	if n, err := h.Network(); err == nil {
		f.Network = n
	}
	if id, err := h.Identity(); err == nil {
		f.Node = id.Node
	}
	return f, nil
}

func (h Host) path(p string) string { return filepath.Join("/", h.Root, p) }

// number is what a file of one number says, 0 when there is none.
func (h Host) number(p string) int {
	n, err := strconv.Atoi(h.read(p))
	if err != nil {
		return 0
	}
	return n
}

func (h Host) read(p string) string {
	b, err := os.ReadFile(h.path(p))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h Host) exists(p string) bool {
	_, err := os.Lstat(h.path(p))
	return err == nil
}

// BootID changes with every boot and with nothing else.
func (h Host) BootID() (string, error) {
	id := h.read("/proc/sys/kernel/random/boot_id")
	if id == "" {
		return "", errors.New("boot id: /proc/sys/kernel/random/boot_id is not readable")
	}
	return id, nil
}

// BootChanged is what [BootChangedFile] says, "" when nothing was declared.
func (h Host) BootChanged() string {
	digest := h.read(BootChangedFile)
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size {
		return ""
	}
	return digest
}

// Hostname is the kernel's.
func (h Host) Hostname() string { return h.read("/proc/sys/kernel/hostname") }

// Firmware is what the machine booted with, bios or uefi.
func (h Host) Firmware() string {
	if h.exists("/sys/firmware/efi") {
		return "uefi"
	}
	return "bios"
}

// Identity says which node an installed system is; fs.ErrNotExist when it is none.
func (h Host) Identity() (Identity, error) {
	var id Identity
	b, err := os.ReadFile(h.path(IdentityFile))
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, fmt.Errorf("%s: %w", IdentityFile, err)
	}
	return id, nil
}

// rescueMarks are files only a provider's rescue system has.
var rescueMarks = []string{"/etc/hetzner-build", "/root/.oldroot/nfs/install", "/etc/ovhrescue", "/etc/rescue-version"}

// Rescue tells whether this is a provider's rescue system, and if not, why not. It takes three proofs, because wiping
// the disks of a running system is the worst that can be done: the name, a mark, and no installed identity. That / is
// not on one of the disks is proven where the disks are wiped.
func (h Host) Rescue() (bool, string) {
	name := h.Hostname()
	if !strings.HasPrefix(name, "rescue") {
		return false, fmt.Sprintf("the host name is %q", name)
	}
	if _, err := h.Identity(); !errors.Is(err, fs.ErrNotExist) {
		return false, IdentityFile + " exists"
	}
	if strings.HasPrefix(name, "rescue-customer") { // OVH says it in the name
		return true, ""
	}
	for _, m := range rescueMarks {
		if h.exists(m) {
			return true, ""
		}
	}
	return false, "none of the providers' marks of a rescue system is there (" + strings.Join(rescueMarks, ", ") + ")"
}

func (h Host) release() string {
	target, err := os.Readlink(h.path("/opt/fleet/current"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

func (h Host) memoryMB() int {
	for line := range strings.Lines(h.read("/proc/meminfo")) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, _ := strconv.Atoi(f[1])
			return kb / 1024
		}
	}
	return 0
}
