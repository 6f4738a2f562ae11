package crdt

// joinUnder joins what two replicas hold at one path; nil is nothing, below a parent whose cover is ca or cb.
func joinUnder(a, b *node, ca, cb Stamp) *node {
	switch {
	case a == b:
		return a
	case a == nil:
		if ca <= b.stamp {
			return b
		}
		a = &node{stamp: ca, top: ca, last: ca}
	case b == nil:
		if cb <= a.stamp {
			return a
		}
		b = &node{stamp: cb, top: cb, last: cb}
	}
	return join(a, b)
}

// join is the least upper bound of two nodes at one path.
func join(a, b *node) *node {
	if a.dead != 0 || b.dead != 0 {
		return (&node{dead: max(a.dead, b.dead)}).seal()
	}
	if a.stamp < b.stamp {
		a, b = b, a
	}
	n := &node{stamp: a.stamp, clash: max(a.clash, b.clash), uniq: a.uniq || b.uniq}
	n.inc = joinTallies(a.inc, b.inc)
	n.max, n.min = joinExtremes(a.max, b.max), joinExtremes(a.min, b.min)
	n.seen = a.seen
	if a.stamp == b.stamp {
		n.seen = joinTallies(a.seen, b.seen)
	}
	cover := n.cover()
	n.kids = joinKids(a.kids, b.kids, a.cover(), b.cover(), cover)
	n.elems = joinElems(a.elems, b.elems, a.cover(), b.cover(), cover)
	n.settle(a, b)
	return n.seal()
}

// settle decides what the node is: what the newest claim says. A claim is the deciding write itself, or a write
// below that needs a document or an array here.
func (n *node) settle(a, b *node) {
	cover := n.cover()
	docs, arrays := n.claim(document, a, b, cover), n.claim(array, a, b, cover)
	switch {
	case docs == 0 && arrays == 0:
		n.settleLeaf(a, b, cover)
	case docs >= arrays:
		n.kind, n.elems = document, nil
		n.raise(arrays)
		n.base = baseOf(n, a, b)
	default:
		n.kind = array
		n.raise(docs)
		n.kids = husks(n.kids, n.cover())
	}
}

// claim is the newest write that wants the node to be of this kind, 0 if none does.
func (n *node) claim(k kind, a, b *node, cover Stamp) Stamp {
	var newest Stamp
	if k == document {
		for _, c := range n.kids {
			if c.n.top > cover {
				newest = max(newest, c.n.top)
			}
		}
	} else {
		for _, e := range n.elems {
			newest = max(newest, e.dot.Stamp)
		}
	}
	for _, side := range [2]*node{a, b} {
		if side.kind == k && side.cover() == cover {
			newest = max(newest, cover, 1)
		}
	}
	return newest
}

func (n *node) settleLeaf(a, b *node, cover Stamp) {
	n.kids = husks(n.kids, cover)
	for _, side := range [2]*node{a, b} {
		if side.kind == scalar && side.stamp == cover {
			n.kind, n.val = scalar, side.val
			return
		}
	}
}

// raise covers what the losing kind's newest write covers.
func (n *node) raise(loser Stamp) {
	if loser <= n.cover() {
		return
	}
	n.clash = loser
	n.kids = joinKids(n.kids, nil, 0, loser, loser)
	n.elems = joinElems(n.elems, nil, 0, loser, loser)
}

func baseOf(n, a, b *node) []string {
	if n.clash > n.stamp {
		return nil
	}
	for _, side := range [2]*node{a, b} {
		if side.kind == document && side.stamp == n.stamp && side.clash <= side.stamp && side.base != nil {
			return side.base
		}
	}
	return nil
}

func joinKids(a, b []kid, ca, cb, cover Stamp) []kid {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	out := make([]kid, 0, max(len(a), len(b)))
	for len(a) > 0 || len(b) > 0 {
		var x, y *node
		var key string
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].key < b[0].key:
			key, x, a = a[0].key, a[0].n, a[1:]
		case len(a) == 0 || b[0].key < a[0].key:
			key, y, b = b[0].key, b[0].n, b[1:]
		default:
			key, x, y, a, b = a[0].key, a[0].n, b[0].n, a[1:], b[1:]
		}
		if n := joinUnder(x, y, ca, cb); !n.bare(cover) {
			out = append(out, kid{key, n})
		}
	}
	return out
}

// joinElems: an element is covered as a whole, by the stamp it was born with. An edit does not save it.
func joinElems(a, b []elem, ca, cb, cover Stamp) []elem {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	out := make([]elem, 0, max(len(a), len(b)))
	for len(a) > 0 || len(b) > 0 {
		var e elem
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].dot.compare(b[0].dot) < 0:
			e, a = a[0], a[1:]
		case len(a) == 0 || b[0].dot.compare(a[0].dot) < 0:
			e, b = b[0], b[1:]
		default:
			e = elem{a[0].dot, joinUnder(a[0].n, b[0].n, 0, 0)}
			a, b = a[1:], b[1:]
		}
		if e.dot.Stamp >= cover {
			out = append(out, e)
		}
	}
	return out
}

// husks keeps of hidden fields only what must not be counted twice should it come again.
func husks(kids []kid, cover Stamp) []kid {
	var out []kid
	for _, k := range kids {
		n := &node{stamp: cover, inc: k.n.inc, seen: k.n.seen, max: k.n.max, min: k.n.min}
		if k.n.stamp < cover {
			n.seen = nil
		}
		n.kids = husks(k.n.kids, cover)
		if n.seal(); !n.bare(cover) {
			out = append(out, kid{k.key, n})
		}
	}
	return out
}
