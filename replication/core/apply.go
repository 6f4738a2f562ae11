package core

// pump starts applying what can be applied: of each origin the next entry, once it is durable (so that after a crash the
// log covers all that the backend may have) and everything it depends on is there.
func (m *Machine) pump() {
	if m.phase != serving {
		return
	}
	for again := true; again; {
		again = false
		for _, p := range m.peers {
			o := m.log[p.ID]
			e, ok := o.at(m.applied[p.ID] + 1)
			if !ok || o.busy || e.Seq > m.durable[p.ID] || !m.due(e) {
				continue
			}
			if e.Void {
				m.advanceTo(e)
				again = true
				continue
			}
			o.busy = true
			m.start(&job{key: e.Key, kind: peers, entry: e})
		}
	}
}

// due says that everything the entry's origin had applied is applied here.
func (m *Machine) due(e Entry) bool {
	if m.bug(IgnoreDependencies) {
		return true
	}
	for o, n := range e.Deps {
		if o != e.Origin && m.applied[o] < n {
			return false
		}
	}
	return true
}

// merge applies a peer's entry.
func (m *Machine) merge(j *job) {
	m.observe(j.entry.Stamp)
	state := j.slot.State()
	if state.Seq(j.entry.Origin) >= j.entry.Seq {
		if j.slot.HasDoc && !state.Alive() {
			m.remove(j)
			return
		}
		m.landed(j)
		return
	}
	forgotten := max(m.forgotten, j.entry.Forgot)
	if d := j.entry.Delta; d.Alive() && d.Created() == 0 && state.Outlived(d, forgotten) {
		m.stats.Orphans++
	}
	m.put(j, state.MergeKnowing(j.entry.Delta, forgotten))
}

// advanceOrigin: an entry is in the backend.
func (m *Machine) advanceOrigin(j *job) {
	m.stats.Applied++
	m.log[j.entry.Origin].busy = false
	m.advanceTo(j.entry)
	m.finish(j)
	m.wake()
	m.pump()
}

func (m *Machine) advanceTo(e Entry) {
	if e.Stamp <= m.low {
		m.stats.Late++
	}
	m.applied[e.Origin] = max(m.applied[e.Origin], e.Seq)
	m.observe(e.Stamp)
	m.marks[e.Origin] = max(m.marks[e.Origin], e.Stamp)
	m.marked(e.Origin)
}
