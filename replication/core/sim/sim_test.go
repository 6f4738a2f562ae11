package sim

import (
	"errors"
	"flag"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seed  = flag.Uint64("seed", 0, "replay this seed and print what happens")
	seeds = flag.Uint64("seeds", 400, "how many seeds to run")
	from  = flag.Uint64("from", 1, "the first of them")
)

func TestSeeds(t *testing.T) {
	if *seed != 0 {
		report, err := Run(*seed, Options{Trace: func(l string) { t.Log(l) }})
		t.Logf("%+v", report)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	count := *seeds
	if testing.Short() {
		count /= 10
	}
	var next atomic.Uint64
	var mu sync.Mutex
	var sum Report
	sum.Steps = map[string]int{}
	failures := 0
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= count {
					return
				}
				r, err := Run(*from+i, Options{})
				mu.Lock()
				sum.add(r)
				if err != nil {
					failures++
					if failures <= 20 {
						t.Error(err)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds, %d failed: %+v", count, failures, sum)
	for _, s := range slices.Sorted(maps.Keys(sum.Steps)) {
		t.Logf("crashed while %s: %d", s, sum.Steps[s])
	}
}

func (r *Report) add(o Report) {
	r.Events += o.Events
	r.Requests += o.Requests
	r.Acked += o.Acked
	r.Crashes += o.Crashes
	r.Lost += o.Lost
	r.Late += o.Late
	r.Partitions += o.Partitions
	r.Recoveries += o.Recoveries
	r.Reissued += o.Reissued
	r.Voided += o.Voided
	r.Retried += o.Retried
	r.Heal = max(r.Heal, o.Heal)
	for k, v := range o.Steps {
		r.Steps[k] += v
	}
}

func TestReplayIsExact(t *testing.T) {
	for s := range uint64(20) {
		a, errA := Run(s, Options{})
		b, errB := Run(s, Options{})
		if a.Hash != b.Hash || a.Events != b.Events || !errors.Is(errA, errB) {
			t.Errorf("seed %d: %d events, then %d", s, a.Events, b.Events)
		}
	}
}
