package smart

import (
	"fmt"
	"slices"

	"popfleet/agents"
)

// Baseline is what a disk's error counters were when this node first saw it, or when it last had fewer: only their
// growth is news.
type Baseline struct {
	MediaErrors uint64 `json:"media_errors"`
	Reallocated uint64 `json:"reallocated"`
}

// baselineOf is the baseline a reading would be taken as.
func baselineOf(r Reading) Baseline {
	var b Baseline
	if r.NVMe != nil {
		b.MediaErrors = r.NVMe.MediaErrors
	}
	if r.SATA != nil {
		b.Reallocated = r.SATA.raw(attrReallocated)
	}
	return b
}

// Judge turns a reading into the verdict a report carries.
func Judge(r Reading, base Baseline) agents.Disk {
	j := &judgement{disk: r.disk()}
	j.disk.Verdict = agents.DiskOK
	switch {
	case r.Unsupported != "":
		j.find(agents.DiskUnsupported, "%s", r.Unsupported)
	case r.Error != "":
		j.find(agents.DiskWarn, "health could not be read: %s", r.Error)
	case r.NVMe != nil:
		j.nvme(*r.NVMe, base)
	case r.SATA != nil:
		j.sata(*r.SATA, base)
	default:
		j.find(agents.DiskUnsupported, "the reader said nothing of this disk")
	}
	return j.disk
}

// JudgeAll judges disks at first sight: nothing has grown yet.
func JudgeAll(readings []Reading) []agents.Disk {
	disks := []agents.Disk{}
	for _, r := range readings {
		disks = append(disks, Judge(r, baselineOf(r)))
	}
	return disks
}

type judgement struct{ disk agents.Disk }

var severity = []string{agents.DiskOK, agents.DiskUnsupported, agents.DiskWarn, agents.DiskFailing}

func (j *judgement) find(verdict, format string, args ...any) {
	if slices.Index(severity, verdict) > slices.Index(severity, j.disk.Verdict) {
		j.disk.Verdict = verdict
	}
	j.disk.Findings = append(j.disk.Findings, fmt.Sprintf(format, args...))
}

// Bits of the NVMe critical warning. A hot disk needs air; every other bit is the drive saying that it is, or will be,
// no longer reliable.
var criticalBits = []struct {
	bit     uint8
	verdict string
	means   string
}{
	{0x01, agents.DiskFailing, "spare capacity is below the threshold"},
	{0x02, agents.DiskWarn, "temperature is outside its limits"},
	{0x04, agents.DiskFailing, "reliability is degraded by media or internal errors"},
	{0x08, agents.DiskFailing, "media is read-only"},
	{0x10, agents.DiskFailing, "volatile memory backup failed"},
	{0x20, agents.DiskFailing, "persistent memory region is unreliable"},
	{0xc0, agents.DiskFailing, "a warning this version does not know"},
}

// usedWarn is smartd's bar for percentage_used: the vendor's estimate of the endurance consumed, which may pass 100.
const usedWarn = 95

// nvme judges as smartd does (smartd.cpp, the NVMe part of its device check): spare strictly below a threshold that is a
// percentage — QEMU answers 0 and 0 —, use above 95 %, growth of media errors, any critical bit. The count of error log
// entries is left out on purpose: harmless unsupported commands raise it.
func (j *judgement) nvme(l NVMeLog, base Baseline) {
	used, spare := int(l.PercentUsed), int(l.SparePercent)
	j.disk.PercentUsed, j.disk.SparePercent = &used, &spare
	j.disk.PowerOnHours, j.disk.MediaErrors, j.disk.CriticalFlags = &l.PowerOnHours, &l.MediaErrors, &l.CriticalWarning
	if l.TemperatureK > 0 {
		celsius := int(l.TemperatureK) - 273
		j.disk.TemperatureC = &celsius
	}
	for _, b := range criticalBits {
		if l.CriticalWarning&b.bit != 0 {
			j.find(b.verdict, "critical_warning 0x%02x: %s (bit 0x%02x set)", l.CriticalWarning, b.means, b.bit)
		}
	}
	if l.SpareThreshold <= 100 && l.SparePercent < l.SpareThreshold {
		j.find(agents.DiskFailing, "available_spare %d%%: below the drive's threshold of %d%%", l.SparePercent, l.SpareThreshold)
	}
	if l.PercentUsed > usedWarn {
		j.find(agents.DiskWarn, "percentage_used %d%%: above %d%%", l.PercentUsed, usedWarn)
	}
	if l.MediaErrors > base.MediaErrors {
		j.find(agents.DiskWarn, "media_errors %d: %d more than when first seen", l.MediaErrors, l.MediaErrors-base.MediaErrors)
	}
}

// Attributes with a rule of their own, by number, as all vendors use them.
const (
	attrReallocated   = 5
	attrUncorrectable = 187
	attrPending       = 197
	attrOffline       = 198
)

// reallocatedWarn: drives with 16 and more reallocated sectors fail several times as often in the published annual
// rates; with a few they fail hardly more often than with none.
const reallocatedWarn = 16

// sata judges by the drive's own verdict, its thresholds, and the counters that predict failure. 188 (command timeouts)
// has no rule: many drives pack three counters into it.
func (j *judgement) sata(p SATAPage, base Baseline) {
	j.disk.TemperatureC, j.disk.PowerOnHours = p.TemperatureC, p.PowerOnHours
	if p.Passed != nil && !*p.Passed {
		j.find(agents.DiskFailing, "the drive's own verdict: failing (SMART RETURN STATUS)")
	}
	for _, a := range p.Attributes {
		j.threshold(a)
		j.counter(a, base)
	}
}

// threshold: 0 means there is none, 254 and 255 are never-passing and test values (ATA/ATAPI-5 table, kept by vendors).
func (j *judgement) threshold(a Attribute) {
	if a.Threshold == 0 || a.Threshold >= 254 || a.Current == 0 || a.Current >= 254 {
		return
	}
	verdict := agents.DiskWarn
	if a.PreFailure {
		verdict = agents.DiskFailing
	}
	switch {
	case a.Current <= a.Threshold:
		j.find(verdict, "%s (%d) value %d: at or below its threshold of %d", a.Name, a.ID, a.Current, a.Threshold)
	case a.Worst != 0 && a.Worst <= a.Threshold:
		j.find(agents.DiskWarn, "%s (%d) worst %d: was at or below its threshold of %d in the past", a.Name, a.ID, a.Worst, a.Threshold)
	}
}

func (j *judgement) counter(a Attribute, base Baseline) {
	switch a.ID {
	case attrUncorrectable, attrPending, attrOffline:
		if a.Raw > 0 {
			j.find(agents.DiskWarn, "%s (%d) raw %d: expected 0", a.Name, a.ID, a.Raw)
		}
	case attrReallocated:
		if a.Raw > base.Reallocated {
			j.find(agents.DiskWarn, "%s (%d) raw %d: %d more than when first seen", a.Name, a.ID, a.Raw, a.Raw-base.Reallocated)
		} else if a.Raw >= reallocatedWarn {
			j.find(agents.DiskWarn, "%s (%d) raw %d: %d or more", a.Name, a.ID, a.Raw, reallocatedWarn)
		}
	}
}

// raw is an attribute's raw value, 0 when the drive has none by that number.
func (p *SATAPage) raw(id uint8) uint64 {
	for _, a := range p.Attributes {
		if a.ID == id {
			return a.Raw
		}
	}
	return 0
}
