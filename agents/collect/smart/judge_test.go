package smart

import (
	"strings"
	"testing"

	"popfleet/agents"
)

func nvme(change func(*NVMeLog)) Reading {
	l := &NVMeLog{TemperatureK: 311, SparePercent: 100, SpareThreshold: 10, PercentUsed: 3, PowerOnHours: 1000}
	change(l)
	return Reading{Serial: "S", Kind: KindNVMe, NVMe: l}
}

func sata(attrs ...Attribute) Reading {
	return Reading{Serial: "S", Kind: KindSATA, SATA: &SATAPage{Attributes: attrs}}
}

func failed() *bool { no := false; return &no }

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		reading Reading
		base    Baseline
		verdict string
		says    string // in the findings; "" means there are none
	}{
		"healthy nvme":                  {nvme(func(*NVMeLog) {}), Baseline{}, agents.DiskOK, ""},
		"qemu nvme: spare 0 of 0":       {nvme(func(l *NVMeLog) { l.SparePercent, l.SpareThreshold = 0, 0 }), Baseline{}, agents.DiskOK, ""},
		"spare at the threshold":        {nvme(func(l *NVMeLog) { l.SparePercent = 10 }), Baseline{}, agents.DiskOK, ""},
		"spare below the threshold":     {nvme(func(l *NVMeLog) { l.SparePercent = 9 }), Baseline{}, agents.DiskFailing, "available_spare 9%: below the drive's threshold of 10%"},
		"a threshold that is none":      {nvme(func(l *NVMeLog) { l.SpareThreshold = 101 }), Baseline{}, agents.DiskOK, ""},
		"worn to the bar":               {nvme(func(l *NVMeLog) { l.PercentUsed = 95 }), Baseline{}, agents.DiskOK, ""},
		"worn":                          {nvme(func(l *NVMeLog) { l.PercentUsed = 96 }), Baseline{}, agents.DiskWarn, "percentage_used 96%"},
		"hot":                           {nvme(func(l *NVMeLog) { l.CriticalWarning = 2 }), Baseline{}, agents.DiskWarn, "critical_warning 0x02: temperature"},
		"read-only and hot":             {nvme(func(l *NVMeLog) { l.CriticalWarning = 10 }), Baseline{}, agents.DiskFailing, "read-only"},
		"a bit of the future":           {nvme(func(l *NVMeLog) { l.CriticalWarning = 0x80 }), Baseline{}, agents.DiskFailing, "does not know"},
		"old media errors":              {nvme(func(l *NVMeLog) { l.MediaErrors = 7 }), Baseline{MediaErrors: 7}, agents.DiskOK, ""},
		"new media errors":              {nvme(func(l *NVMeLog) { l.MediaErrors = 9 }), Baseline{MediaErrors: 7}, agents.DiskWarn, "media_errors 9: 2 more"},
		"drive says failing":            {Reading{Kind: KindSATA, SATA: &SATAPage{Passed: failed()}}, Baseline{}, agents.DiskFailing, "own verdict"},
		"prefailure below threshold":    {sata(Attribute{ID: 1, Name: "Raw_Read_Error_Rate", Current: 6, Worst: 6, Threshold: 6, PreFailure: true}), Baseline{}, agents.DiskFailing, "at or below its threshold"},
		"old-age below threshold":       {sata(Attribute{ID: 9, Name: "Power_On_Hours", Current: 1, Worst: 1, Threshold: 2}), Baseline{}, agents.DiskWarn, "Power_On_Hours (9) value 1"},
		"was below threshold":           {sata(Attribute{ID: 1, Name: "R", Current: 100, Worst: 5, Threshold: 6, PreFailure: true}), Baseline{}, agents.DiskWarn, "in the past"},
		"no threshold":                  {sata(Attribute{ID: 1, Current: 1, Worst: 1}), Baseline{}, agents.DiskOK, ""},
		"one reallocated sector":        {sata(Attribute{ID: 5, Raw: 1, Current: 100}), Baseline{Reallocated: 1}, agents.DiskOK, ""},
		"reallocated sectors grow":      {sata(Attribute{ID: 5, Name: "Reallocated_Sector_Ct", Raw: 3}), Baseline{Reallocated: 1}, agents.DiskWarn, "2 more than when first seen"},
		"many reallocated sectors":      {sata(Attribute{ID: 5, Raw: 16}), Baseline{Reallocated: 16}, agents.DiskWarn, "raw 16: 16 or more"},
		"a pending sector":              {sata(Attribute{ID: 197, Name: "Current_Pending_Sector", Raw: 1}), Baseline{}, agents.DiskWarn, "Current_Pending_Sector (197) raw 1: expected 0"},
		"command timeouts, packed":      {sata(Attribute{ID: 188, Raw: 4295032833}), Baseline{}, agents.DiskOK, ""},
		"unreadable":                    {Reading{Kind: KindNVMe, Error: "input/output error"}, Baseline{}, agents.DiskWarn, "could not be read: input/output error"},
		"virtual":                       {Reading{Kind: KindVirtual, Unsupported: "no SMART (virtual)"}, Baseline{}, agents.DiskUnsupported, "no SMART"},
		"a reader that says nothing":    {Reading{Kind: KindSCSI}, Baseline{}, agents.DiskUnsupported, "nothing"},
		"warn and failing is failing":   {nvme(func(l *NVMeLog) { l.CriticalWarning, l.PercentUsed = 4, 99 }), Baseline{}, agents.DiskFailing, "percentage_used"},
		"counters never below baseline": {nvme(func(l *NVMeLog) { l.MediaErrors = 1 }), Baseline{MediaErrors: 7}, agents.DiskOK, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := Judge(tt.reading, tt.base)
			text := strings.Join(d.Findings, "; ")
			if d.Verdict != tt.verdict || !strings.Contains(text, tt.says) || (tt.says == "") != (text == "") {
				t.Errorf("verdict %q, findings %q; want %q with %q", d.Verdict, text, tt.verdict, tt.says)
			}
		})
	}
}

func TestJudgeFillsWhatIsKnownAndLeavesTheRestNull(t *testing.T) {
	d := Judge(nvme(func(l *NVMeLog) { l.TemperatureK = 0 }), Baseline{})
	if d.TemperatureC != nil || d.PercentUsed == nil || *d.PercentUsed != 3 || *d.PowerOnHours != 1000 || *d.CriticalFlags != 0 {
		t.Errorf("%+v", d)
	}
	if d = Judge(nvme(func(*NVMeLog) {}), Baseline{}); d.TemperatureC == nil || *d.TemperatureC != 38 {
		t.Errorf("temperature %v", d.TemperatureC)
	}
	if d = Judge(sata(), Baseline{}); d.PercentUsed != nil || d.TemperatureC != nil || d.MediaErrors != nil {
		t.Errorf("%+v", d)
	}
}

func TestReturnStatus(t *testing.T) {
	descriptor := func(mid, high byte) []byte {
		return []byte{0x72, 1, 0, 0x1d, 0, 0, 0, 14, 0x09, 0x0c, 0, 0, 0, 0, 0, 0, 0, mid, 0, high, 0, 0x50}
	}
	passed, bad := parseStatus(descriptor(0x4f, 0xc2)), parseStatus(descriptor(0xf4, 0x2c))
	if passed == nil || !*passed || bad == nil || *bad {
		t.Errorf("passed %v, failing %v", passed, bad)
	}
	for name, sense := range map[string][]byte{
		"none": nil, "fixed format": {0x70, 0, 5, 0, 0, 0, 0, 10}, "cut": descriptor(0x4f, 0xc2)[:20], "neither": descriptor(0, 0),
		"another descriptor": {0x72, 0, 0, 0, 0, 0, 0, 4, 0x00, 2, 0, 0},
	} {
		if v := parseStatus(sense); v != nil {
			t.Errorf("%s: %v", name, *v)
		}
	}
}

func FuzzReturnStatus(f *testing.F) {
	f.Add([]byte{0x72, 1, 0, 0x1d, 0, 0, 0, 14, 0x09, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0x50})
	f.Add([]byte{0x72, 0, 0, 0, 0, 0, 0, 4, 0x00, 0, 0x09, 0xff})
	f.Fuzz(func(_ *testing.T, sense []byte) { parseStatus(sense) })
}
