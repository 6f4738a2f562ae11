package e2e

import (
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A fault matrix is generated: what can fail is what the lab and the run themselves come by in one clean run. `make test`
// runs a slice of it; POPFLEET_MATRIX=full (make matrix) runs all and 2/3 the second third, POPFLEET_MATRIX_SEED picks
// another slice, and POPFLEET_MATRIX_ONLY leaves the cases whose name holds a text.
const (
	matrixEnv     = "POPFLEET_MATRIX"
	matrixSeedEnv = "POPFLEET_MATRIX_SEED"
	matrixOnlyEnv = "POPFLEET_MATRIX_ONLY"
)

// matrixAtOnce is how many cases run side by side: they mostly wait.
const matrixAtOnce = 12

// ending is how a case went.
type ending string

const (
	converged ending = "converged"
	stopped   ending = "stopped with a reason"
	missed    ending = "did not come by" // the occasion did not come again: a clean run
)

// matrixCase is one fault at one occasion.
type matrixCase struct {
	name, provider, kind string
	run                  func(t *testing.T) ending
}

// chosen says whether a case is in this run.
func (c matrixCase) chosen(slice uint32) bool {
	only, much := os.Getenv(matrixOnlyEnv), os.Getenv(matrixEnv)
	if !strings.Contains(c.name, only) {
		return false
	}
	h := fnv.New32a()
	fmt.Fprint(h, os.Getenv(matrixSeedEnv), c.name)
	var part, parts uint32
	switch _, err := fmt.Sscanf(much, "%d/%d", &part, &parts); {
	case err == nil && parts > 0:
		return h.Sum32()%parts == part%parts
	case much == "full", only != "":
		return true
	}
	return h.Sum32()%slice == 0
}

// tally is what came of a matrix.
type tally struct {
	sync.Mutex
	ran    map[string]int            // by provider and kind
	ended  map[string]map[ending]int // by provider
	failed []string
}

// runMatrix runs the cases side by side and logs what came of them; a plain run takes one in slice.
func runMatrix(t *testing.T, what string, slice uint32, cases []matrixCase) {
	t.Helper()
	sum := &tally{ran: map[string]int{}, ended: map[string]map[ending]int{}}
	all := len(cases)
	cases = slices.DeleteFunc(cases, func(c matrixCase) bool { return !c.chosen(slice) })
	began, cpu := time.Now(), cpuTime()
	queue := make(chan matrixCase)
	var workers sync.WaitGroup
	for range matrixAtOnce {
		workers.Go(func() {
			for c := range queue {
				sum.run(t, c)
			}
		})
	}
	for _, c := range cases {
		queue <- c
	}
	close(queue)
	workers.Wait()
	t.Logf("fault matrix, %s: %d of %d cases in %s, %s of CPU", what, len(cases), all, time.Since(began).Round(time.Second), (cpuTime() - cpu).Round(time.Second))
	sum.log(t)
}

func (s *tally) run(t *testing.T, c matrixCase) {
	var e ending
	ok := t.Run(c.name, func(t *testing.T) { e = c.run(t) })
	s.Lock()
	defer s.Unlock()
	s.ran[c.provider+" "+c.kind]++
	if s.ended[c.provider] == nil {
		s.ended[c.provider] = map[ending]int{}
	}
	if !ok {
		s.failed = append(s.failed, c.name)
		return
	}
	s.ended[c.provider][e]++
}

func (s *tally) log(t *testing.T) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(s.ended)) {
		t.Logf("%s: %v", p, s.ended[p])
	}
	for _, k := range slices.Sorted(maps.Keys(s.ran)) {
		t.Logf("  %4d × %s", s.ran[k], k)
	}
	t.Logf("violations: %d %q", len(s.failed), s.failed)
}

// cpuTime is what this process used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // of ourselves: can't fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
