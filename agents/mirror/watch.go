package mirror

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"popfleet/agents"
)

// Watch reads the arrays for a node's reports, and remembers in a file which disks each had when it was last whole: a
// disk that is gone can't say its serial any more. It may be used from one goroutine at a time.
type Watch struct {
	Host Host
	File string // serials by array; "" keeps them in memory only
	Log  *slog.Logger

	whole    map[string][]string // array name → serials of the members, sorted; nil before the file was read
	degraded map[string]bool     // as last logged
}

// Mirrors is what the kernel says now. nil: the machine has none.
func (w *Watch) Mirrors() (all []agents.Mirror) {
	w.load()
	before := maps.Clone(w.whole)
	for _, a := range w.Host.List() {
		all = append(all, w.mirror(a))
	}
	if !maps.EqualFunc(before, w.whole, slices.Equal) {
		w.save()
	}
	return all
}

func (w *Watch) mirror(a Array) agents.Mirror {
	m := agents.Mirror{Name: cmp.Or(a.Name, a.Device), Device: a.Device, WantedMembers: a.Wanted, ActiveMembers: len(a.InSync()),
		Degraded: a.Degraded(), Action: a.Action, ProgressPercent: a.Percent, Members: []agents.MirrorMember{}}
	var serials []string
	for _, x := range a.Members {
		s := w.Host.serial(x)
		m.Members = append(m.Members, agents.MirrorMember{Device: x.Device, Serial: s, State: x.State})
		if !x.Faulty() && s != "" {
			serials = append(serials, s)
		}
	}
	slices.Sort(serials)
	if !m.Degraded && len(serials) == a.Wanted {
		w.whole[m.Name] = serials
	}
	for _, s := range w.whole[m.Name] {
		if m.Degraded && !slices.Contains(serials, s) {
			m.Gone = append(m.Gone, s)
		}
	}
	w.announce(m)
	return m
}

// announce logs once when a mirror degrades and once when it is whole again.
func (w *Watch) announce(m agents.Mirror) {
	if w.degraded[m.Name] == m.Degraded {
		return
	}
	if w.degraded == nil {
		w.degraded = map[string]bool{}
	}
	w.degraded[m.Name] = m.Degraded
	if m.Degraded {
		w.Log.Warn("mirror degraded", "mirror", m.Name, "device", m.Device, "active", m.ActiveMembers, "wanted", m.WantedMembers, "gone", m.Gone)
		return
	}
	w.Log.Info("mirror is whole again", "mirror", m.Name, "device", m.Device)
}

// load reads the file once. What it says is only ever shown as serials, so a lost file costs a name and nothing else.
func (w *Watch) load() {
	if w.whole != nil {
		return
	}
	w.whole = map[string][]string{}
	if w.File == "" {
		return
	}
	data, err := os.ReadFile(w.File)
	if err == nil {
		err = json.Unmarshal(data, &w.whole)
	}
	if err != nil || w.whole == nil {
		w.whole = map[string][]string{}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Log.Warn("which disks the mirrors had is lost, until they are whole", "error", err)
	}
}

func (w *Watch) save() {
	if w.File == "" {
		return
	}
	if err := w.write(); err != nil {
		w.Log.Warn("which disks the mirrors have could not be saved", "error", err)
	}
}

// write replaces the file whole.
func (w *Watch) write() error {
	data, err := json.MarshalIndent(w.whole, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(w.File), "mirrors-*")
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
