// Package smart reads and judges the health disks report of themselves. Reading (Reader) needs privileges and a
// library that does raw ioctls, so it runs in a process of its own (agents/collect/probe); judging (Judge, Watch) needs
// neither. It never writes to a disk and never calls a disk healthy whose health it could not read.
package smart

import "popfleet/agents"

// Kinds of disk.
const (
	KindNVMe    = "nvme"
	KindSATA    = "sata"
	KindSCSI    = "scsi"
	KindVirtual = "virtual"
)

// Reading is one disk's raw account of itself at one moment. It is the message between the privileged reader and the
// judge. Exactly one of NVMe, SATA, Unsupported and Error is set.
type Reading struct {
	Serial      string    `json:"serial"`
	Model       string    `json:"model"`
	Kind        string    `json:"kind"`
	SizeBytes   int64     `json:"size_bytes"`
	NVMe        *NVMeLog  `json:"nvme,omitempty"`
	SATA        *SATAPage `json:"sata,omitempty"`
	Unsupported string    `json:"unsupported,omitempty"` // why there is nothing to read
	Error       string    `json:"error,omitempty"`       // why reading failed
}

// NVMeLog is what we use of log page 02h (NVMe Base Specification 2.0, figure 207).
type NVMeLog struct {
	CriticalWarning uint8  `json:"critical_warning"`
	TemperatureK    uint16 `json:"temperature_k"` // kelvin; 0: not reported
	SparePercent    uint8  `json:"spare_percent"`
	SpareThreshold  uint8  `json:"spare_threshold"`
	PercentUsed     uint8  `json:"percent_used"`
	PowerOnHours    uint64 `json:"power_on_hours"`
	MediaErrors     uint64 `json:"media_errors"`
}

// SATAPage is what we use of SMART READ DATA, READ THRESHOLDS and RETURN STATUS (ATA8-ACS).
type SATAPage struct {
	Attributes   []Attribute `json:"attributes"`
	Passed       *bool       `json:"passed"` // the drive's own verdict; nil when it gave none
	TemperatureC *int        `json:"temperature_c"`
	PowerOnHours *uint64     `json:"power_on_hours"`
}

// Attribute is one SMART attribute. Raw is decoded by the drive table's format.
type Attribute struct {
	ID         uint8  `json:"id"`
	Name       string `json:"name"`
	Current    uint8  `json:"current"`
	Worst      uint8  `json:"worst"`
	Threshold  uint8  `json:"threshold"`
	PreFailure bool   `json:"pre_failure"`
	Raw        uint64 `json:"raw"`
}

// disk is the part of a report's disk that needs no judgement.
func (r Reading) disk() agents.Disk {
	return agents.Disk{Serial: r.Serial, Model: r.Model, Kind: r.Kind, SizeBytes: r.SizeBytes}
}
