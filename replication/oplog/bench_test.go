package oplog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAppend is the log beside a bare loop that writes the same bytes to one file with one fsync for all who wait,
// on the same disk in the same run: the floor. Run it with -benchtime=5s.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("bare/%d", writers), func(b *testing.B) {
			l := newBare(b)
			defer l.close()
			drive(b, writers, func(_ uint64, e Entry) error {
				raw, err := AppendEntry(nil, &e)
				if err != nil {
					return err
				}
				return l.append(raw)
			})
		})
		b.Run(fmt.Sprintf("log/%d", writers), func(b *testing.B) {
			l, err := Open(filepath.Join(b.TempDir(), "log"), Options{Origin: own, Soft: 8 << 30, Hard: 16 << 30})
			must(b, err)
			defer l.Close()
			drive(b, writers, func(_ uint64, e Entry) error { return l.Append(b.Context(), e) })
		})
	}
	b.Run("log-with-sessions/64", func(b *testing.B) {
		l, err := Open(filepath.Join(b.TempDir(), "log"), Options{Origin: own, Soft: 8 << 30, Hard: 16 << 30})
		must(b, err)
		defer l.Close()
		drive(b, 64, func(w uint64, e Entry) error {
			e.Session = &Session{LSID: fmt.Appendf(nil, "%016d", w), Txn: int64(e.Seq), Result: make([]byte, 60)}
			return l.Append(b.Context(), e)
		})
	})
}

// drive spreads b.N appends of about 300 bytes over the writers.
func drive(b *testing.B, writers int, f func(writer uint64, e Entry) error) {
	payload := make([]byte, 256)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	var seq atomic.Uint64
	var mu sync.Mutex
	var took []time.Duration
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var own256 []time.Duration
			for s := seq.Add(1); s <= uint64(b.N); s = seq.Add(1) {
				began := time.Now()
				if err := f(uint64(w), Entry{Origin: own, Seq: s, HLC: int64(s), NS: "shop.orders", Payload: payload}); err != nil {
					b.Error(err)
					return
				}
				own256 = append(own256, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own256...)
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// bare is the least that makes appends durable together.
type bare struct {
	f    *os.File
	mu   sync.Mutex
	buf  []byte
	wait []chan error
	wake chan struct{}
	done sync.WaitGroup
}

func newBare(b *testing.B) *bare {
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	must(b, err)
	l := &bare{f: f, wake: make(chan struct{}, 1)}
	l.done.Go(l.run)
	return l
}

func (l *bare) append(raw []byte) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.buf = append(l.buf, raw...)
	l.wait = append(l.wait, done)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return <-done
}

func (l *bare) run() {
	var buf []byte
	for range l.wake {
		l.mu.Lock()
		var wait []chan error
		buf, l.buf = l.buf, buf[:0]
		wait, l.wait = l.wait, nil
		l.mu.Unlock()
		_, err := l.f.Write(buf)
		if e := l.f.Sync(); err == nil {
			err = e
		}
		for _, w := range wait {
			w <- err
		}
	}
}

func (l *bare) close() {
	close(l.wake)
	l.done.Wait()
	l.f.Close()
}
