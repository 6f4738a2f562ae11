package crdt

const maxStamp = Stamp(1<<63 - 1)

// Compact is d without what only matters while something older may still arrive: stamps of what was unset, dots of
// removed elements, and clashes, all up to cut. The caller knows that every member has everything up to cut, and that
// nobody will bring a state that doesn't.
func (d Doc) Compact(cut Stamp) Doc {
	if d.root == nil {
		return d
	}
	d.root, _ = d.root.compact(cut)
	return d
}

func (n *node) compact(cut Stamp) (out *node, changed bool) {
	kids := n.kids
	for i, k := range n.kids {
		c, touched := k.n.compact(cut)
		forget := c.stamp <= cut && c.bare(c.stamp)
		if !touched && !forget {
			if changed {
				kids = append(kids, k)
			}
			continue
		}
		if !changed {
			kids, changed = append(make([]kid, 0, len(n.kids)), n.kids[:i]...), true
		}
		if !forget {
			kids = append(kids, kid{k.key, c})
		}
	}
	elems, changedElems := compactElems(n.elems, cut)
	clash := n.clash != 0 && n.clash <= cut
	if !changed && !changedElems && !clash {
		return n, false
	}
	m := *n
	m.kids, m.elems = kids, elems
	if clash {
		m.clash = 0
	}
	return m.seal(), true
}

func compactElems(elems []elem, cut Stamp) (out []elem, changed bool) {
	out = elems
	for i, e := range elems {
		c, touched := e.n.compact(cut)
		forget := e.n.dead != 0 && e.n.dead <= cut
		if !touched && !forget {
			if changed {
				out = append(out, e)
			}
			continue
		}
		if !changed {
			out, changed = append(make([]elem, 0, len(elems)), elems[:i]...), true
		}
		if !forget {
			out = append(out, elem{e.dot, c})
		}
	}
	return out, changed
}
