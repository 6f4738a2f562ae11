package collect

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"popfleet/agents"
	"popfleet/agents/facts"
)

// machine reads one machine's /proc, /sys and file systems; root is "" outside of tests.
type machine struct{ root string }

func (m machine) path(p string) string { return filepath.Join("/", m.root, p) }

func (m machine) read(p string) string {
	b, err := os.ReadFile(m.path(p))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (m machine) host() agents.Host {
	h := agents.Host{
		Hostname:  m.read("/proc/sys/kernel/hostname"),
		Kernel:    m.read("/proc/sys/kernel/osrelease"),
		UptimeSec: m.firstNumber("/proc/uptime"),
		Load1:     m.firstNumber("/proc/loadavg"),
		CPUs:      runtime.NumCPU(),
		RootLUKS:  facts.Host{Root: m.root}.RootLUKS() == nil,
	}
	h.MemTotal, h.MemAvailable = parseMeminfo(m.read("/proc/meminfo"))
	h.RootTotal, h.RootFree = m.rootBytes()
	h.ClockSynced, h.ClockErrSec = clock(unix.Adjtimex)
	return h
}

func (m machine) firstNumber(p string) float64 {
	first, _, _ := strings.Cut(m.read(p), " ")
	n, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return n
}

// parseMeminfo finds two of /proc/meminfo's lines, in bytes.
func parseMeminfo(text string) (total, available int64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || kib < 0 || kib > 1<<50 {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available
}

// rootBytes counts as free what services can use: what is kept back for root is not.
func (m machine) rootBytes() (total, free int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.path("/"), &fs); err != nil {
		return 0, 0
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize
}

// clock asks the kernel whether something disciplines its clock, and how far off it may be (adjtimex(2): maxerror, in
// microseconds). The bound of a clock that nothing disciplines only says how long ago that was, so it is unknown.
func clock(adjtimex func(*unix.Timex) (int, error)) (synced *bool, errorSec *float64) {
	var t unix.Timex
	if _, err := adjtimex(&t); err != nil {
		return nil, nil
	}
	ok := t.Status&unix.STA_UNSYNC == 0
	if ok {
		bound := float64(t.Maxerror) / 1e6
		errorSec = &bound
	}
	return &ok, errorSec
}

// release is the digest the link of the running release names.
func (m machine) release() string {
	target, err := os.Readlink(m.path("/opt/fleet/current"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}
