// Package agents is the part of fleet-agent that the operator's side may know: the report a node sends to its
// controllers. Collecting, applying and installing live in the subpackages and run on the node only.
package agents

import "time"

// Report is everything one node says of itself at one moment. POST /v1/reports carries a JSON array of them, newest
// last; (Node, BootID, Seq) makes a resend harmless. Unknown is null or absent, never 0.
type Report struct {
	V        int       `json:"v"` // 1
	Node     string    `json:"node"`
	BootID   string    `json:"boot_id"`
	Seq      uint64    `json:"seq"` // from 1, per boot
	Time     time.Time `json:"time"`
	Release  string    `json:"release,omitempty"`
	Host     Host      `json:"host"`
	Disks    []Disk    `json:"disks"`
	Mirrors  []Mirror  `json:"mirrors,omitempty"` // none on a node with one disk
	Services []Service `json:"services"`
	Pairs    []Pair    `json:"pairs"`

	// BootChanged is the digest of what the last package run of this boot that changed it left to boot from.
	BootChanged string `json:"boot_changed,omitempty"`
}

// Host is the machine without its disks. Bytes and seconds.
type Host struct {
	Hostname     string   `json:"hostname"`
	Kernel       string   `json:"kernel"`
	UptimeSec    float64  `json:"uptime_sec"`
	Load1        float64  `json:"load1"`
	CPUs         int      `json:"cpus"`
	MemTotal     int64    `json:"mem_total_bytes"`
	MemAvailable int64    `json:"mem_available_bytes"`
	RootTotal    int64    `json:"root_total_bytes"`
	RootFree     int64    `json:"root_free_bytes"`
	RootLUKS     bool     `json:"root_luks"`
	ClockSynced  *bool    `json:"clock_synced"`
	ClockErrSec  *float64 `json:"clock_error_sec"`
}

// Verdicts on a disk. "unsupported" is never shown as healthy.
const (
	DiskOK          = "ok"
	DiskWarn        = "warn"
	DiskFailing     = "failing"
	DiskUnsupported = "unsupported"
)

// Disk is one block device's health by its own account; each finding names attribute, value and rule.
type Disk struct {
	Serial        string   `json:"serial"`
	Model         string   `json:"model"`
	Kind          string   `json:"kind"` // nvme | sata | scsi | virtual
	SizeBytes     int64    `json:"size_bytes"`
	Verdict       string   `json:"verdict"`
	Findings      []string `json:"findings,omitempty"`
	TemperatureC  *int     `json:"temperature_c"`
	PowerOnHours  *uint64  `json:"power_on_hours"`
	PercentUsed   *int     `json:"percent_used"`
	SparePercent  *int     `json:"spare_percent"`
	MediaErrors   *uint64  `json:"media_errors"`
	CriticalFlags *uint8   `json:"critical_flags"`
}

// Mirror is one md array as the kernel runs it. It is degraded while fewer members are in sync than it should have.
type Mirror struct {
	Name            string         `json:"name"`   // of its partitions: fleet-boot, fleet-root
	Device          string         `json:"device"` // md127
	WantedMembers   int            `json:"members_wanted"`
	ActiveMembers   int            `json:"members_active"` // in sync
	Degraded        bool           `json:"degraded"`
	Action          string         `json:"action,omitempty"` // idle | recover | resync | check | …, as the kernel says
	ProgressPercent *float64       `json:"progress_percent"` // of the action; null when none is under way
	Members         []MirrorMember `json:"members"`
	Gone            []string       `json:"gone,omitempty"` // serials that were members when it was last whole, and are none now
}

// MirrorMember is a partition that the kernel counts to a mirror.
type MirrorMember struct {
	Device string `json:"device"`           // nvme0n1p4
	Serial string `json:"serial,omitempty"` // of its disk
	State  string `json:"state"`            // in_sync | faulty | spare | …, by commas
}

// Service is one service's own words, read from its control socket.
type Service struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Reason  string `json:"reason,omitempty"`
	State   string `json:"state,omitempty"` // serving | draining | drained
	Version string `json:"version,omitempty"`
}

// Pair is one directed replication link as its receiver sees it: From → this node.
type Pair struct {
	From         string   `json:"from"`
	State        string   `json:"state"` // never_connected | connected | stalled ; replication states come with replication
	Replicating  bool     `json:"replicating"`
	RTTMs        *float64 `json:"rtt_ms"`
	OffsetMs     *float64 `json:"clock_offset_ms"` // peer's clock − ours
	AgeSec       *float64 `json:"heartbeat_age_sec"`
	StalenessSec *float64 `json:"staleness_sec"` // null until replication exists
}
