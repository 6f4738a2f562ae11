package crdt

import (
	"slices"
	"strings"
)

// A node is the state at one path. The write that decided it (the newest set or unset at this path or above it) is its
// stamp; what was written below it later hangs in kids or elems. Nodes are immutable once they are part of a Doc.
type node struct {
	stamp Stamp
	// clash is set where documents and arrays were written concurrently below this path: the newest write of the kind
	// that lost. What is older is covered by it, as by a write at this path.
	clash Stamp
	// top is the newest write at or below this path.
	top Stamp
	// last is the newest stamp of any kind at or below this path, removals included.
	last Stamp
	// dead is the stamp of the removal of an array element. It is final.
	dead Stamp
	kind kind
	// uniq marks an array element that $addToSet brought: it shows only if no equal one comes before it.
	uniq bool
	// counts says that a tally is at or below this path.
	counts bool

	val   any      // a scalar's value
	base  []string // a document's fields in the order of the write that decided it
	kids  []kid    // by name
	elems []elem   // by dot

	inc      []tally   // by origin
	seen     []tally   // the tallies that the deciding write saw, by origin
	max, min []extreme // by origin, newer than stamp
}

type kind uint8

const (
	absent kind = iota
	scalar
	document
	array
)

type kid struct {
	key string
	n   *node
}

type elem struct {
	dot Dot
	n   *node
}

// cover is the stamp below which nothing under this path counts.
func (n *node) cover() Stamp { return max(n.stamp, n.clash) }

func (n *node) kid(key string) *node {
	if n == nil {
		return nil
	}
	if i, ok := findKid(n.kids, key); ok {
		return n.kids[i].n
	}
	return nil
}

func findKid(kids []kid, key string) (int, bool) {
	return slices.BinarySearchFunc(kids, key, func(k kid, key string) int { return strings.Compare(k.key, key) })
}

// bare says that the node says no more than its parent's cover does.
func (n *node) bare(cover Stamp) bool {
	return n.kind == absent && n.stamp <= cover && n.clash <= cover && n.dead == 0 &&
		len(n.kids) == 0 && len(n.elems) == 0 &&
		len(n.inc) == 0 && len(n.seen) == 0 && len(n.max) == 0 && len(n.min) == 0
}

// seal computes what is derived from the rest. Every constructor ends with it.
func (n *node) seal() *node {
	if n.clash <= n.stamp {
		n.clash = 0
	}
	n.max, n.min = alive(n.max, n.stamp), alive(n.min, n.stamp)
	n.top = n.cover()
	n.counts = len(n.inc) > 0
	for _, t := range n.inc {
		n.top = max(n.top, t.at)
	}
	for _, x := range n.max {
		n.top = max(n.top, x.at)
	}
	for _, x := range n.min {
		n.top = max(n.top, x.at)
	}
	n.last = max(n.top, n.dead)
	for _, k := range n.kids {
		n.top, n.last = max(n.top, k.n.top), max(n.last, k.n.last)
		n.counts = n.counts || k.n.counts
	}
	for _, e := range n.elems {
		n.top, n.last = max(n.top, e.dot.Stamp, e.n.top), max(n.last, e.n.last)
	}
	n.last = max(n.last, n.top)
	return n
}
