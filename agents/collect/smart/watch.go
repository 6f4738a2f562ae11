package smart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"popfleet/agents"
)

// Source reads all disks. It returns when ctx ends, even if a disk does not.
type Source interface {
	Readings(ctx context.Context) ([]Reading, error)
}

// Watch keeps the verdict on every disk current: it asks Source now and then, remembers each disk's baseline in a file
// across restarts, and shows a disk whose health can no longer be read as just that.
type Watch struct {
	Source  Source
	Every   time.Duration // default one minute
	Timeout time.Duration // of one reading of all disks; default 30s
	File    string        // baselines by serial; "" keeps them in memory only
	Log     *slog.Logger

	mu    sync.Mutex
	disks []agents.Disk
	base  map[string]Baseline
}

// Disks is what is known now; nil before the first reading. The caller may keep it.
func (w *Watch) Disks() []agents.Disk {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.disks)
}

// Run reads until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	every := w.Every
	if every <= 0 {
		every = time.Minute
	}
	w.load()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *Watch) look(ctx context.Context) {
	timeout := w.Timeout
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	readings, err := w.Source.Readings(asking)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.Log.Warn("disks could not be read", "error", err)
		w.unreadable(err)
		return
	}
	w.judge(readings)
}

func (w *Watch) judge(readings []Reading) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := maps.Clone(w.base)
	disks := []agents.Disk{}
	for _, r := range readings {
		d := w.sticky(Judge(r, w.baseline(r)), r)
		w.announce(d)
		disks = append(disks, d)
	}
	w.disks = disks
	if !maps.Equal(before, w.base) {
		w.save()
	}
}

// baseline adopts a disk at first sight and follows counters downwards: a replaced firmware or controller may start
// over. The caller holds mu.
func (w *Watch) baseline(r Reading) Baseline {
	if r.Serial == "" || (r.NVMe == nil && r.SATA == nil) {
		return baselineOf(r)
	}
	now := baselineOf(r)
	b, known := w.base[r.Serial]
	if !known {
		b = now
	}
	b.MediaErrors, b.Reallocated = min(b.MediaErrors, now.MediaErrors), min(b.Reallocated, now.Reallocated)
	if w.base == nil {
		w.base = map[string]Baseline{}
	}
	w.base[r.Serial] = b
	return b
}

// sticky keeps a failing disk failing when it stops telling. The caller holds mu.
func (w *Watch) sticky(d agents.Disk, r Reading) agents.Disk {
	for _, old := range w.disks {
		if old.Serial == d.Serial && r.Error != "" && old.Verdict == agents.DiskFailing {
			d.Verdict = agents.DiskFailing
			d.Findings = append(d.Findings, "it was failing when it could last be read")
		}
	}
	return d
}

// announce logs a verdict when it is new: at first sight, unless healthy, and at every change. The caller holds mu.
func (w *Watch) announce(d agents.Disk) {
	was := agents.DiskOK
	for _, old := range w.disks {
		if old.Serial == d.Serial {
			was = old.Verdict
		}
	}
	if was != d.Verdict {
		w.Log.Warn("disk verdict changed", "serial", d.Serial, "model", d.Model, "from", was, "to", d.Verdict, "findings", d.Findings)
	}
}

// unreadable keeps what the disks are and withdraws what was said of their health.
func (w *Watch) unreadable(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.disks == nil {
		return // nothing was ever known of them
	}
	disks := []agents.Disk{}
	for _, d := range w.disks {
		if d.Verdict != agents.DiskUnsupported {
			r := Reading{Serial: d.Serial, Model: d.Model, Kind: d.Kind, SizeBytes: d.SizeBytes, Error: err.Error()}
			d = w.sticky(Judge(r, Baseline{}), r)
		}
		disks = append(disks, d)
	}
	w.disks = disks
}

func (w *Watch) load() {
	base := map[string]Baseline{}
	data, err := os.ReadFile(w.File)
	if err == nil {
		err = json.Unmarshal(data, &base)
	}
	if err != nil && w.File != "" && !errors.Is(err, fs.ErrNotExist) {
		w.Log.Warn("disk baselines are lost, counters start anew", "error", err)
		base = map[string]Baseline{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.base = base
}

// save replaces the file whole. The caller holds mu.
func (w *Watch) save() {
	if w.File == "" {
		return
	}
	if err := w.write(); err != nil {
		w.Log.Warn("disk baselines could not be saved", "error", err)
	}
}

func (w *Watch) write() error {
	data, err := json.MarshalIndent(w.base, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(w.File), "disks-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), w.File)
}
