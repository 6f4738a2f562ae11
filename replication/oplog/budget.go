package oplog

import "time"

// sampleEvery is after how many written bytes Pebble is asked again how much disk it holds.
const sampleEvery = 4 << 20

// maxDelay is what a write is slowed by just below the hard limit.
const maxDelay = 100 * time.Millisecond

// Used is how many bytes the log holds on disk.
func (l *Log) Used() int64 { return l.used.Load() }

// Admit asks whether a write may begin. It may not when the budget is used up (ErrFull), and should wait Delay first when
// it nearly is (ErrSoft). Once a write's document is changed, its entry must be taken: Append refuses only an eighth
// beyond the hard limit.
func (l *Log) Admit() error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.reads.RUnlock()
	if l.used.Load() >= l.opts.Soft {
		l.sample() // Pebble gives disk back when it comes to it
	}
	used, soft, hard := l.used.Load(), l.opts.Soft, l.opts.Hard
	switch {
	case used < soft:
		return nil
	case used >= hard:
		return &BudgetError{Kind: ErrFull, Used: used, Soft: soft, Hard: hard}
	}
	share := float64(used-soft) / float64(hard-soft)
	return &BudgetError{Kind: ErrSoft, Used: used, Soft: soft, Hard: hard, Delay: time.Duration(share * float64(maxDelay))}
}

// room refuses entries when even the reserve for writes on their way is used up.
func (s *step) room(bytes int) error {
	l := s.log
	used := l.used.Load() + int64(s.batch.Len())
	if bytes > 0 && used+int64(bytes) > l.opts.Hard+l.opts.Hard/8 {
		return &BudgetError{Kind: ErrFull, Used: used, Soft: l.opts.Soft, Hard: l.opts.Hard}
	}
	return nil
}

// wrote counts what a step wrote, and looks again now and then.
func (l *Log) wrote(bytes int) {
	before := l.used.Load()
	if now := l.used.Add(int64(bytes)); now/sampleEvery != before/sampleEvery {
		l.sample()
	}
}

// sample leaves out old write-ahead logs that Pebble keeps to write over them: at most four times a memtable.
func (l *Log) sample() {
	m := l.db.Metrics()
	l.used.Store(int64(m.DiskSpaceUsage() - m.WAL.ObsoletePhysicalSize))
}

// reclaim gives the disk back what Truncate dropped. Pebble does so by itself in time; close to the limit there is none.
func (l *Log) reclaim(below Vector) {
	if l.used.Load() < l.opts.Soft/2 || !l.tidy.CompareAndSwap(false, true) {
		return
	}
	l.qmu.Lock()
	defer l.qmu.Unlock()
	if l.closing {
		l.tidy.Store(false)
		return
	}
	below = below.Clone()
	l.work.Go(func() {
		defer l.tidy.Store(false)
		for _, origin := range below.Origins() {
			if err := l.db.Compact(logKey(origin, 0), logKey(origin, below[origin]+1), false); err != nil {
				l.opts.Log.Warn("compact the log", "origin", origin, "error", err)
			}
		}
		l.sample()
	})
}
