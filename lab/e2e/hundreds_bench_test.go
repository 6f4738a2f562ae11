package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkHundreds brings up 200 nodes in twelve PoPs at 100 ms of round trip and three real minutes of provider time.
// The operator is a process of its own, so its memory and processor time are its own.
// Bars: wall ≤ 1.15 × the slowest node, memory ≤ 150 MB. It runs once, and only when asked for: make bench HUNDREDS=1.
func BenchmarkHundreds(b *testing.B) {
	if os.Getenv("HUNDREDS") == "" {
		b.Skip("takes three minutes: set HUNDREDS=1")
	}
	for range min(b.N, 1) { // three minutes average themselves
		m := newMany(b, 200, time.Minute, 100*time.Millisecond)
		r, used := m.operate(b)
		m.judge(b, r)
		b.ReportMetric(r.Wall.Seconds(), "wall-s")
		b.ReportMetric(r.Wall.Seconds()/r.Slowest.Seconds(), "wall/slowest")
		b.ReportMetric(float64(used.Maxrss)/1024, "operator-MB")
		b.ReportMetric(float64(used.Utime.Nano()+used.Stime.Nano())/1e6/200, "operator-cpu-ms/node")
		b.ReportMetric(float64(r.Sent)/1e6, "uplink-MB")
	}
}

// operate runs TestManyOperator in a process of its own.
func (m *many) operate(b *testing.B) (manyReport, *syscall.Rusage) {
	b.Helper()
	job, err := json.Marshal(m.job)
	must(b, err)
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestManyOperator$", "-test.v")
	// The job is too long for the environment of a process: it names every node.
	cmd.Env = append(os.Environ(), manyEnv+"=stdin")
	cmd.Stdin = bytes.NewReader(job)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("operator process: %v\n%s", err, out)
	}
	_, rest, ok := strings.Cut(string(out), reportMarker)
	if !ok {
		b.Fatalf("the operator process did not report:\n%s", out)
	}
	var r manyReport
	must(b, json.NewDecoder(strings.NewReader(rest)).Decode(&r))
	return r, cmd.ProcessState.SysUsage().(*syscall.Rusage)
}
