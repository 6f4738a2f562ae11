package faults

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is one thing set to go wrong.
type Fault struct {
	ID   int  `json:"id,omitempty"`
	Kind Kind `json:"kind"`
	// Provider limits an API fault to one provider's API: hetznercloud, hetznerrobot or ovh; "" is every one.
	Provider string   `json:"provider,omitempty"`
	Machine  string   `json:"machine,omitempty"` // server name, id or address; "" is every one
	Call     string   `json:"call,omitempty"`    // API faults: a call's name (create_server) or route (POST /servers); "" is every one
	Port     uint16   `json:"port,omitempty"`    // network faults; 0 is every port
	Step     string   `json:"step,omitempty"`    // node faults, and kinds whose words say so
	Disk     int      `json:"disk,omitempty"`    // from 0
	Times    int      `json:"times,omitempty"`   // hits before it clears itself; 0 means until cleared
	Skip     int      `json:"skip,omitempty"`    // matching occasions let pass first
	Delay    Duration `json:"delay,omitempty"`   // before it strikes
	For      Duration `json:"for,omitempty"`     // how long it lasts
	Bytes    int64    `json:"bytes,omitempty"`
	Hits     int      `json:"hits,omitempty"`

	first time.Time // of the first hit; For counts from here for network faults
}

// Duration is a time.Duration written as "3s" in JSON.
type Duration time.Duration

// D is the plain duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// MarshalText writes "1.5s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "1.5s".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: expected a number with a unit, such as 30s", b)
	}
	*d = Duration(v)
	return nil
}

// Occasion is a moment at which a fault could strike.
type Occasion struct {
	Layer    string
	Provider string   // whose API it is; "" where no API is asked
	Machine  []string // every name the machine goes by: id, server name, address; nil when the call is about none
	Call     []string // the call's name and its route
	Port     uint16
	Step     string
}

// Set is the faults that are set. The zero value is empty and ready; methods are safe for concurrent use.
type Set struct {
	mu     sync.Mutex
	faults []*Fault    // guarded by mu
	lastID int         // guarded by mu
	hits   map[int]int // guarded by mu: by id, also of faults that are gone
	calls  []string    // guarded by mu: every name of a call; nil when no API told them
	watch  Watch       // guarded by mu
}

// Watch hears of every occasion, with the kinds that could strike at it (none: every kind of its layer), and may strike
// there itself. It is called from the goroutine that asks, which may hold locks of its simulator.
type Watch func(o Occasion, kinds []Kind) (Fault, bool)

// SetWatch sets who hears of occasions, for generators of fault matrices; nil is nobody.
func (s *Set) SetWatch(w Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = w
}

func (s *Set) watched(o Occasion, kinds []Kind) (Fault, bool) {
	s.mu.Lock()
	w := s.watch
	s.mu.Unlock()
	if w == nil {
		return Fault{}, false
	}
	return w(o, kinds)
}

// Know tells the calls there are, so that a fault for a call that does not exist is refused: it would never strike, and
// a test that relies on it could not fail.
func (s *Set) Know(calls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, calls...)
}

// Add sets a fault and returns it with its id.
func (s *Set) Add(f Fault) (Fault, error) {
	if Layer(f.Kind) == "" {
		return Fault{}, fmt.Errorf("fault kind %q: no such kind (fleet-lab faults lists them)", f.Kind)
	}
	if f.Times < 0 || f.Skip < 0 || f.Bytes < 0 || f.Delay < 0 || f.For < 0 || f.Disk < 0 {
		return Fault{}, fmt.Errorf("fault %s: times, skip, bytes, disk, delay and for can't be negative", f.Kind)
	}
	if f.Provider != "" && Layer(f.Kind) != API {
		return Fault{}, fmt.Errorf("fault %s: a provider goes with faults of an API only; name the machine", f.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Call != "" && s.calls != nil && !slices.ContainsFunc(s.calls, func(c string) bool { return strings.EqualFold(c, f.Call) }) {
		return Fault{}, fmt.Errorf("fault %s: call %q: no such call (fleet-lab faults --calls lists them)", f.Kind, f.Call)
	}
	s.lastID++
	f.ID, f.Hits, f.first = s.lastID, 0, time.Time{}
	s.faults = append(s.faults, &f)
	return f, nil
}

// MustAdd is Add for tests and fixed tables; a fault that can't be set is a broken invariant of the caller.
func (s *Set) MustAdd(f Fault) Fault {
	f, err := s.Add(f)
	if err != nil {
		panic(err)
	}
	return f
}

// Clear removes the fault with this id, or all of them when id is 0, and says how many.
func (s *Set) Clear(id int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.faults)
	s.faults = slices.DeleteFunc(s.faults, func(f *Fault) bool { return id == 0 || f.ID == id })
	return before - len(s.faults)
}

// List returns what is set, oldest first.
func (s *Set) List() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.faults))
	for _, f := range s.faults {
		out = append(out, *f)
	}
	return out
}

// Hits says how often a fault struck, also one that has cleared itself since. A test whose fault never struck has shown
// nothing.
func (s *Set) Hits(id int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[id]
}

// Take returns the oldest fault that strikes at this occasion, if any, and counts the hit. With kinds given, only those
// are looked at.
func (s *Set) Take(o Occasion, kinds ...Kind) (Fault, bool) {
	if s == nil {
		return Fault{}, false
	}
	if f, ok := s.watched(o, kinds); ok {
		return f, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !f.matches(o) || len(kinds) > 0 && !slices.Contains(kinds, f.Kind) || s.over(f) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Hits++
		if s.hits == nil {
			s.hits = map[int]int{}
		}
		s.hits[f.ID]++
		if f.first.IsZero() {
			f.first = time.Now()
		}
		if f.Times > 0 && f.Hits >= f.Times {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
		return *f, true
	}
	return Fault{}, false
}

// over says whether a fault that lasts for a time from its first hit has ended. Only network faults last so: for a call,
// For is how late the answer comes.
func (s *Set) over(f *Fault) bool {
	return Layer(f.Kind) == Net && f.For > 0 && !f.first.IsZero() && time.Since(f.first) > f.For.D()
}

func (f *Fault) matches(o Occasion) bool {
	if Layer(f.Kind) != o.Layer {
		return false
	}
	if f.Provider != "" && f.Provider != o.Provider {
		return false
	}
	if f.Machine != "" && !slices.Contains(o.Machine, f.Machine) {
		return false
	}
	if f.Call != "" && !slices.ContainsFunc(o.Call, func(c string) bool { return strings.EqualFold(c, f.Call) }) {
		return false
	}
	if f.Step != "" && o.Step != "" && f.Step != o.Step {
		return false
	}
	return f.Port == 0 || f.Port == o.Port
}
