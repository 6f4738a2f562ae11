package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"

	"popfleet/replication/core"
	"popfleet/replication/crdt"
)

// Options shape a run. The zero Options are the full set of faults.
type Options struct {
	// Trace is called with every step, for people.
	Trace func(line string)
	// Prepare is called with every machine before its first event.
	Prepare func(*core.Machine)
}

// Report is what a run did.
type Report struct {
	Seed                               uint64
	Events, Requests, Acked, Crashes   int
	Lost, Late, Partitions, Recoveries int
	Reissued, Voided, Retried          int
	// Steps counts the crashes by what the crashed node's writes were at.
	Steps map[string]int
	// Hash is over every event: equal for equal histories.
	Hash uint64
	// Heal is how long after the last fault everything was equal, in simulated milliseconds.
	Heal int64
}

// A Violation is a broken promise.
type Violation struct {
	Seed      uint64
	Invariant string
	What      string
}

func (v Violation) Error() string {
	return fmt.Sprintf("seed %d: %s: %s", v.Seed, v.Invariant, v.What)
}

const (
	beat    = 200
	maxTime = 400
	faulty  = 5000  // how long things fail
	patient = 20000 // how long they may take to settle
)

type world struct {
	*rand.Rand
	opts   Options
	now    int64
	queue  queue
	order  uint64
	nodes  []*node
	report Report
	cuts   map[[2]crdt.Origin]bool
	loss   int // of a thousand messages
	stall  int // of a thousand writes to the backend
	calm   bool
	clients
}

// Run plays one seed.
func Run(seed uint64, opts Options) (Report, error) {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 0x5eed)), opts: opts, cuts: map[[2]crdt.Origin]bool{}}
	w.report = Report{Seed: seed, Hash: 14695981039346656037, Steps: map[string]int{}}
	w.build()
	err := w.play()
	for _, n := range w.nodes {
		w.tally(n)
	}
	return w.report, err
}

func (w *world) build() {
	w.loss, w.stall = w.IntN(4)*40, w.IntN(4)*40
	cfg := core.Config{Durability: core.Durability(w.IntN(2)), MaxTime: maxTime, AckTime: 3 * beat, Beat: beat,
		MaxAhead: 60_000, Batch: 1 + w.IntN(20), Keep: []int64{0, 1 << 40}[w.IntN(2)]}
	count := 2 + w.IntN(3)
	for i := range count {
		cfg.Members = append(cfg.Members, core.Member{ID: crdt.Origin(i + 1), PoP: string(rune('a' + i/2))})
	}
	w.clients = newClients(cfg)
	for i := range count {
		c := cfg
		c.Self = crdt.Origin(i + 1)
		n := &node{id: c.Self, cfg: c, world: w, backend: map[core.Key]*core.Slot{}, skew: 10_000_000 + int64(w.IntN(20_000)) - 10_000}
		n.adopt(w.adopted)
		w.nodes = append(w.nodes, n)
		n.start()
	}
	for at := int64(0); at < faulty; at += 1 + int64(w.IntN(90)) {
		w.at(at, "request", func() error { return w.issue() })
	}
	for at := int64(300); at < faulty; at += 100 + int64(w.IntN(900)) {
		w.at(at, "fault", func() error { return w.fault() })
	}
	w.at(faulty, "heal", func() error { w.heal(); return nil })
}

// play runs until everything is equal, or it is clear that it won't be.
func (w *world) play() error {
	for len(w.queue) > 0 {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.report.Events++
		w.mix(uint64(e.at)*31 + uint64(len(e.what)) + e.order<<20)
		if err := e.run(); err != nil {
			return err
		}
		if w.calm && w.report.Events%16 == 0 && w.settled() {
			w.report.Heal = w.now - faulty
			return w.finalChecks()
		}
		if w.now > faulty+patient {
			return w.broken("bounded lag after heal", "%s", w.unsettled())
		}
	}
	return w.broken("bounded lag after heal", "nothing left to happen")
}

func (w *world) mix(v uint64) { w.report.Hash = (w.report.Hash ^ v) * 1099511628211 }

func (w *world) broken(invariant, format string, args ...any) error {
	return Violation{w.report.Seed, invariant, fmt.Sprintf(format, args...)}
}

func (w *world) trace(format string, args ...any) {
	if w.opts.Trace != nil {
		w.opts.Trace(fmt.Sprintf("%6d ", w.now) + fmt.Sprintf(format, args...))
	}
}

func (w *world) at(at int64, what string, run func() error) {
	w.order++
	heap.Push(&w.queue, event{max(at, w.now), w.order, what, run})
}

func (w *world) after(d int64, what string, run func() error) { w.at(w.now+d, what, run) }

type event struct {
	at    int64
	order uint64
	what  string
	run   func() error
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}
