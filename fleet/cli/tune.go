package cli

import (
	"os"
	"runtime/debug"
)

// memoryLimit is where collecting garbage seldom ends: 200 nodes side by side hold about 30 MB, and with the percentage
// alone their garbage took 280 MB before it was collected. It is not a bound: what is held may exceed it.
const memoryLimit = 96 << 20

// Tune trades memory for processor time: a run lives for minutes and holds tens of megabytes, and make bench at 100
// nodes with nothing to change went from 3.5 to 2.4–2.7 ms of processor time a node with it. GOGC and GOMEMLIMIT
// override it.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
