package sim

import "popfleet/replication/crdt"

// fault lets something fail, or mends it.
func (w *world) fault() error {
	if w.calm {
		return nil
	}
	n := w.nodes[w.IntN(len(w.nodes))]
	switch w.IntN(8) {
	case 0, 1, 2:
		w.crash(n, w.IntN(2) == 0)
	case 3:
		w.partition()
	case 4:
		clear(w.cuts)
	case 5:
		w.step(n)
	case 6:
		w.oneWay()
	case 7:
		return w.check()
	}
	return nil
}

// step moves a node's clock. Sometimes what set it forward is noticed after a crash.
func (w *world) step(n *node) {
	by := []int64{-3_600_000, -10_000, -500, 500, 10_000}[w.IntN(5)]
	n.skew += by
	w.trace("%d clock steps by %d ms", n.id, by)
	if by > 0 && w.IntN(2) == 0 {
		w.after(int64(beat+w.IntN(2*beat)), "crash", func() error {
			if !w.calm {
				w.crash(n, true)
				n.skew -= by + 500
			}
			return nil
		})
	}
}

// crash kills a node and starts it again some time later. A power cut takes what was not durable along; a killed process
// leaves what it had written. Sometimes the clock is behind when the node comes back.
func (w *world) crash(n *node, power bool) {
	if !n.up {
		return
	}
	for _, step := range n.m.Steps() {
		w.report.Steps[step]++
	}
	w.report.Crashes++
	n.up = false
	if !power {
		n.log = append(n.log, n.unsynced[:w.IntN(len(n.unsynced)+1)]...)
	}
	n.unsynced = nil
	w.crashed(n)
	w.trace("%d crashes (power cut: %v)", n.id, power)
	w.after(int64(w.IntN(700)), "restart", func() error {
		if !n.up {
			if w.IntN(4) == 0 {
				n.skew -= []int64{500, 5_000, 3_600_000}[w.IntN(3)]
			}
			w.trace("%d starts with %d entries", n.id, len(n.log))
			w.report.Recoveries++
			n.start()
		}
		return nil
	})
}

// partition parts the nodes in two, or makes one node the only bridge between them.
func (w *world) partition() {
	w.report.Partitions++
	clear(w.cuts)
	side := map[crdt.Origin]int{}
	for _, n := range w.nodes {
		side[n.id] = w.IntN(2)
	}
	bridge := crdt.Origin(0)
	if w.IntN(2) == 0 {
		bridge = crdt.Origin(1 + w.IntN(len(w.nodes)))
	}
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if side[a.id] != side[b.id] && a.id != bridge && b.id != bridge {
				w.cuts[[2]crdt.Origin{a.id, b.id}] = true
			}
		}
	}
	w.trace("partition %v, bridge %d", w.sides(side), bridge)
}

func (w *world) sides(side map[crdt.Origin]int) []int {
	out := make([]int, 0, len(w.nodes))
	for _, n := range w.nodes {
		out = append(out, side[n.id])
	}
	return out
}

func (w *world) oneWay() {
	a, b := crdt.Origin(1+w.IntN(len(w.nodes))), crdt.Origin(1+w.IntN(len(w.nodes)))
	w.cuts[[2]crdt.Origin{a, b}] = true
	w.trace("nothing gets from %d to %d", a, b)
}

// heal ends all faults but the clocks', which stay wrong.
func (w *world) heal() {
	w.trace("heal")
	w.calm = true
	clear(w.cuts)
	for _, n := range w.nodes {
		if !n.up {
			w.report.Recoveries++
			n.start()
		}
	}
}
