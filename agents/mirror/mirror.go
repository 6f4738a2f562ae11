// Package mirror reads a machine's md arrays from /sys: what each should have, what it has, and how far a rebuild has
// come (kernel: Documentation/admin-guide/md.rst). It needs no privilege, opens no device, runs no program and changes
// nothing. An attribute that can't be read or says something new is left out, never taken for a whole mirror.
package mirror

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"popfleet/agents/disk"
)

// Host is where a machine's /sys is; the zero value is this machine.
type Host struct{ Root string }

// Array is one array as the kernel sees it now.
type Array struct {
	Device  string // md127
	Name    string // the GPT name of its members: fleet-root; "" when they have none
	State   string // array_state: clean, active, inactive, …
	Wanted  int    // members it should have; 0 is not known, as of an array that was not started
	Action  string // sync_action: idle, resync, recover, check, …
	Percent *float64
	Members []Member
}

// Member is a partition (or disk) that the kernel counts to the array, in whatever state.
type Member struct {
	Device string // nvme0n1p4
	Disk   string // nvme0n1; "" when it is no longer there
	State  string // in_sync, faulty, spare, …, by commas
}

// InSync says whether the member has all the data.
func (m Member) InSync() bool { return slices.Contains(strings.Split(m.State, ","), "in_sync") }

// Faulty says whether the kernel has given the member up.
func (m Member) Faulty() bool { return slices.Contains(strings.Split(m.State, ","), "faulty") }

// InSync are the names of the members that have all the data.
func (a Array) InSync() (names []string) {
	for _, m := range a.Members {
		if m.InSync() {
			names = append(names, m.Device)
		}
	}
	return names
}

// Degraded says whether one more failure than a whole array could bear may be its last.
func (a Array) Degraded() bool { return a.Wanted == 0 || len(a.InSync()) < a.Wanted }

// maxBytes bounds an attribute; the kernel gives at most a page.
const maxBytes = 4096

func attr(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b[:min(len(b), maxBytes)]))
}

func (h Host) path(parts ...string) string {
	return filepath.Join(append([]string{"/", h.Root, "sys/block"}, parts...)...)
}

// List is every array of the machine, by device name.
func (h Host) List() (all []Array) {
	dirs, _ := filepath.Glob(h.path("md*", "md"))
	for _, dir := range dirs {
		if a, ok := h.Array(filepath.Base(filepath.Dir(dir))); ok {
			all = append(all, a)
		}
	}
	return all
}

// Array reads one array; false when the device is none.
func (h Host) Array(device string) (Array, bool) {
	dir := h.path(device, "md")
	if _, err := os.Stat(dir); err != nil {
		return Array{}, false
	}
	a := Array{Device: device, State: attr(dir, "array_state"), Wanted: count(attr(dir, "raid_disks")),
		Action: attr(dir, "sync_action"), Percent: Percent(attr(dir, "sync_completed"))}
	members, _ := filepath.Glob(filepath.Join(dir, "dev-*"))
	for _, m := range members {
		name := strings.TrimPrefix(filepath.Base(m), "dev-")
		a.Members = append(a.Members, Member{Device: name, Disk: h.diskOf(name), State: attr(m, "state")})
		a.Name = cmp.Or(a.Name, h.partitionName(name))
	}
	return a, true
}

// maxMembers is more than any array has; a count beyond it is nonsense.
const maxMembers = 1024

// count reads "2", or "3 (2)" while an array is being reshaped to three.
func count(s string) int {
	first, _, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(first)
	if err != nil || n < 0 || n > maxMembers {
		return 0
	}
	return n
}

// Percent reads sync_completed: "12345 / 67890" sectors; nil for "none", "delayed" and whatever else.
func Percent(s string) *float64 {
	done, total, found := strings.Cut(s, " / ")
	if !found {
		return nil
	}
	d, err := strconv.ParseUint(done, 10, 64)
	t, err2 := strconv.ParseUint(total, 10, 64)
	if err != nil || err2 != nil || t == 0 || d > t {
		return nil
	}
	p := float64(d) / float64(t) * 100
	return &p
}

// diskOf finds the disk that a partition lies on. A member may be a whole disk.
func (h Host) diskOf(member string) string {
	if strings.ContainsAny(member, `*?[\/`) {
		return ""
	}
	if _, err := os.Stat(h.path(member)); err == nil {
		return member
	}
	found, _ := filepath.Glob(h.path("*", member))
	for _, f := range found {
		if d := filepath.Base(filepath.Dir(f)); !strings.HasPrefix(d, "md") && !strings.HasPrefix(d, "dm-") {
			return d
		}
	}
	return ""
}

// partitionName is the name that the partition table gives a member.
func (h Host) partitionName(member string) string {
	d := h.diskOf(member)
	if d == "" || d == member {
		return ""
	}
	for line := range strings.Lines(attr(h.path(d, member), "uevent")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTNAME="); ok {
			return name
		}
	}
	return ""
}

// serial names the disk under a member.
func (h Host) serial(m Member) string {
	if m.Disk == "" {
		return ""
	}
	return disk.Host{Root: h.Root}.Serial(m.Disk)
}
