package peerunlock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
)

// Liveness says which nodes this one hears now, and how long ago it heard each; from Run's goroutine. What it returns is
// believed: it must be authenticated, as the mesh's heartbeats are.
type Liveness interface {
	Heard(ctx context.Context) (map[string]time.Duration, error)
}

// Deps is what Run is given from outside. Zero values mean the defaults, but for Alive, which is needed.
type Deps struct {
	Log    *slog.Logger
	Alive  Liveness
	Dial   dial.Dialer
	Rules  Rules
	File   string        // of the wards; read again whenever it changes
	Memory string        // file to keep over a restart what was seen; "": none
	Every  time.Duration // between looks; default 10s
	// Controlled says whether a controller hears this node now: then it decides about the wards, by rules that ask the
	// provider too, and this node's shares stay. nil: there is none.
	Controlled func() bool
}

// Status is what a peer knows of one ward, for people.
type Status struct {
	Ward  string    `json:"ward"`
	Alive time.Time `json:"alive,omitzero"`
	Last  string    `json:"last,omitempty"`  // newest outcome
	Holds string    `json:"holds,omitempty"` // why its share is not handed over
}

// Watcher watches this node's wards.
type Watcher struct {
	d Deps

	mu     sync.Mutex
	wards  []Ward             // guarded by mu, as all below
	login  ssh.Signer         // nil: no wards
	known  map[string]*memory // by node
	status map[string]Status
	told   map[string]string // last words that were logged of a ward
	loaded [sha256.Size]byte
	broken string // why the file is not read
}

// New makes a watcher; Run starts it.
func New(d Deps) *Watcher {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Dial == nil {
		d.Dial = dial.Direct()
	}
	if d.Rules == (Rules{}) {
		d.Rules = DefaultRules()
	}
	if d.File == "" {
		d.File = File
	}
	if d.Every <= 0 {
		d.Every = 10 * time.Second
	}
	return &Watcher{d: d, known: map[string]*memory{}, status: map[string]Status{}, told: map[string]string{}}
}

// Run watches until ctx ends. It fails never: what is wrong is logged, and told by Status.
func (w *Watcher) Run(ctx context.Context) {
	w.recall()
	t := time.NewTicker(w.d.Every)
	defer t.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look is one round: hear who is alive, and hand over to those who are locked, side by side.
func (w *Watcher) look(ctx context.Context) {
	w.reload()
	due := w.due(ctx)
	var all sync.WaitGroup
	for _, ward := range due {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, pushTimeout)
			defer cancel()
			outcome, words := push(ctx, w.d.Dial, w.signer(), ward)
			if ctx.Err() == nil || outcome != Lost {
				w.settle(ward, outcome, words)
			}
		})
	}
	all.Wait()
	w.remember()
}

func (w *Watcher) signer() ssh.Signer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.login
}

// due hears who is alive and returns the wards whose share may go out now.
func (w *Watcher) due(ctx context.Context) (due []Ward) {
	w.mu.Lock()
	wards := w.wards
	w.mu.Unlock()
	if len(wards) == 0 {
		return nil
	}
	heard, err := w.d.Alive.Heard(ctx)
	if err != nil && ctx.Err() == nil {
		// Deaf, it sees nobody alive: what it saw before still counts, for as long as Recently says.
		w.d.Log.Warn("who is alive can't be heard", "error", err)
	}
	now := time.Now()
	controlled := w.d.Controlled != nil && w.d.Controlled()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ward := range wards {
		m := w.of(ward)
		if ago, ok := heard[ward.Node]; ok && ago >= 0 && now.Add(-ago).After(m.Alive) {
			if alive := now.Add(-ago); ago < w.d.Rules.Silent {
				m.seen(alive)
			} else {
				m.Alive = alive
			}
		}
		push, why := w.d.Rules.decide(now, *m)
		if push && controlled {
			push, why = false, "a controller hears this node: it decides"
		}
		s := w.status[ward.Node]
		s.Ward, s.Alive, s.Holds = ward.Node, m.Alive, why
		w.status[ward.Node] = s
		if push {
			due = append(due, ward)
		}
	}
	return due
}

// of is what is known of a ward. Another share is a new chance; mu is held.
func (w *Watcher) of(ward Ward) *memory {
	m := w.known[ward.Node]
	if m == nil {
		m = &memory{}
		w.known[ward.Node] = m
	}
	sum := sha256.Sum256([]byte(ward.Address + ward.HostKey + ward.Share))
	if id := hex.EncodeToString(sum[:8]); m.Share != id {
		m.Share, m.Refused, m.pushed = id, "", time.Time{}
	}
	return m
}

// settle writes down what became of a share.
func (w *Watcher) settle(ward Ward, o Outcome, words string) {
	now := time.Now()
	w.mu.Lock()
	m := w.of(ward)
	switch o {
	case Kept, Opened, Lost:
		m.pushed = now
		m.taken(now)
	case Later:
		m.pushed = now.Add(-w.d.Rules.Pause) // the next look asks again
	case Refused:
		m.pushed, m.Refused = now, "the ward refused this share: "+words
	case Strange:
		m.pushed, m.Refused = now, "another host key answers at the port of its initramfs: nothing was sent"
	}
	s := w.status[ward.Node]
	s.Ward, s.Holds = ward.Node, m.Refused
	if o != Absent {
		s.Last = string(o)
	}
	w.status[ward.Node] = s
	news := o != Absent && w.told[ward.Node] != string(o)+words
	w.told[ward.Node] = string(o) + words
	w.mu.Unlock()
	switch {
	case !news:
	case o == Refused || o == Strange:
		w.d.Log.Error("a share was not taken", o.log(ward, words)...)
	default:
		w.d.Log.Info("a share was handed over", o.log(ward, words)...)
	}
}

// Status is what is known of the wards.
func (w *Watcher) Status() (out []Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ward := range w.wards {
		out = append(out, w.status[ward.Node])
	}
	return out
}
