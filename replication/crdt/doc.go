// Package crdt is the state of one replicated document: a product of join semilattices whose visible value is a pure
// function of it. Whatever order, duplication or staleness the network adds, replicas that received the same deltas
// hold equal bytes.
//
// The rules, path by path:
//   - a set or unset is a last-writer-wins register over the subtree at its path, ordered by Stamp; what is written
//     below it later (or by a higher stamp elsewhere) is grafted onto it; where a newer write needs a document or an
//     array and an older one put something else, the newer decides;
//   - $inc adds to its origin's running total; a set remembers the totals it saw, so increments it did not see survive;
//   - $min and $max are kept per origin with their stamps and count as long as no newer set covers them;
//   - an array is its elements, each named by a Dot; pushes survive each other, removals name dots and are final, equal
//     elements added by $addToSet show once, edits go to the element;
//   - a document's life is its causal length: odd alive, even deleted; the longer wins whole. So a delete beats updates
//     that did not see it, and an insert that saw the delete beats the delete.
//
// Apply turns what an origin did into a Delta, which is itself a small Doc; Merge is the only way state changes. Marshal
// and Unmarshal keep the state beside the value in the document's hidden field.
//
// The package is pure: no clock, no randomness, no I/O. Docs are immutable and may be shared between goroutines. Bytes
// from outside are refused with an error; a violated rule of the callers' (an operation below a scalar) is an error too.
package crdt

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Doc is the state of one document, or a part of it. The zero Doc is the state of a document nobody ever wrote.
type Doc struct {
	id      any
	deaths  []Stamp // the deletes that ended its lives, as far as they are not forgotten
	alive   bool
	created Stamp  // stamp of the newest insert of this life; of a tombstone the stamp of the delete
	dots    []Dot1 // greatest sequence number per origin that touched the document
	root    *node

	// Local is this replica's own and in no digest: the place of the last change among this node's changes.
	local uint64
	// retry names the client's operation behind the last local write, so that a crash between backend and log loses no
	// answer; it stays here until the next local write.
	retry Retry
}

// Dot1 is one entry of a document's version vector.
type Dot1 struct {
	Origin Origin
	Seq    uint64
}

// Retry names a client's operation: its session, the transaction number in it and the statement in that.
type Retry struct {
	Session   []byte
	Number    int64
	Statement int32
}

// Delta is a part of a document's state: what one write added, or all of it.
type Delta = Doc

// ID is the document's _id.
func (d Doc) ID() any { return d.id }

// Causal is the causal length: odd alive, even deleted, 0 never written or forgotten.
func (d Doc) Causal() int {
	if d.alive {
		return 2*len(d.deaths) + 1
	}
	return 2 * len(d.deaths)
}

// Alive says whether the document exists.
func (d Doc) Alive() bool { return d.alive }

// Created is the stamp of the insert that began this life, or of the delete that ended the last.
func (d Doc) Created() Stamp { return d.created }

// Local is the node-local change number the document carries.
func (d Doc) Local() uint64 { return d.local }

// Retry is the client operation behind the last local write.
func (d Doc) Retry() Retry { return d.retry }

// WithLocal is d with another change number.
func (d Doc) WithLocal(n uint64) Doc { d.local = n; return d }

// WithRetry is d with another client operation.
func (d Doc) WithRetry(r Retry) Doc { d.retry = r; return d }

// Portable is d without what belongs to one replica: what a snapshot sends.
func (d Doc) Portable() Doc { d.local, d.retry = 0, Retry{}; return d }

// Seq is the greatest sequence number of an origin that touched the document.
func (d Doc) Seq(o Origin) uint64 {
	for _, e := range d.dots {
		if e.Origin == o {
			return e.Seq
		}
	}
	return 0
}

// Newest is the newest stamp in the state: what a clock must be past before it writes to the document.
func (d Doc) Newest() Stamp {
	if d.root == nil {
		return d.created
	}
	return max(d.created, d.root.last)
}

// Dots is the document's version vector, by origin.
func (d Doc) Dots() []Dot1 { return d.dots }

// Touched is d with an origin's sequence number raised: a write that changes nothing but must be found again.
func (d Doc) Touched(o Origin, seq uint64) Doc {
	d.dots = joinDots(d.dots, []Dot1{{o, seq}})
	return d
}

// Merge is the least state that contains both. What belongs to one replica stays d's.
func (d Doc) Merge(e Delta) Doc { return d.MergeKnowing(e, 0) }

// MergeKnowing is Merge where one of the two may have forgotten deletes up to a stamp: a causal length counts the deletes
// after it. The caller knows that all that was written without knowing those deletes is in d or refused by it.
func (d Doc) MergeKnowing(e Delta, forgotten Stamp) Doc {
	e.deaths = realign(d.deaths, e.deaths, forgotten)
	out := d
	if out.id == nil {
		out.id = e.id
	}
	out.dots = joinDots(d.dots, e.dots)
	switch {
	case e.Causal() > d.Causal():
		out.deaths, out.alive, out.created, out.root = e.deaths, e.alive, e.created, e.root
	case e.Causal() == d.Causal():
		out.created = max(d.created, e.created)
		out.root = joinRoots(d, e)
	}
	out.deaths = earliest(out.deaths, d.deaths, e.deaths)
	return out
}

// realign replaces what theirs has up to the forgotten stamp by what ours has.
func realign(ours, theirs []Stamp, forgotten Stamp) []Stamp {
	n, m := older(ours, forgotten), older(theirs, forgotten)
	if n == m {
		return theirs
	}
	return append(slices.Clone(ours[:n]), theirs[m:]...)
}

// Outlived says that e belongs to a later life of the document than d.
func (d Doc) Outlived(e Delta, forgotten Stamp) bool {
	e.deaths = realign(d.deaths, e.deaths, forgotten)
	return e.Causal() > d.Causal()
}

func older(deaths []Stamp, than Stamp) int {
	n := 0
	for n < len(deaths) && deaths[n] <= than {
		n++
	}
	return n
}

// Forget is d without the deletes up to a stamp: of a tombstone that may be nothing at all.
func (d Doc) Forget(upTo Stamp) Doc {
	n := older(d.deaths, upTo)
	if n == 0 {
		return d
	}
	d.deaths = d.deaths[n:]
	if d.Causal() == 0 {
		return Doc{id: d.id, dots: d.dots, local: d.local, retry: d.retry}
	}
	return d
}

// earliest: of concurrent deletes, which end one life, the first names it. Who has forgotten that one knows the others: they
// were written before their writers knew of it. (The last would not do: a node may have forgotten the first and go on
// with a life whose end another node knows by the last.)
func earliest(deaths, a, b []Stamp) []Stamp {
	for i := range min(len(a), len(b)) {
		if first := min(a[i], b[i]); deaths[i] != first {
			deaths = slices.Clone(deaths)
			deaths[i] = first
		}
	}
	return deaths
}

func joinRoots(d, e Doc) *node {
	if d.root == nil || e.root == nil || d.root == e.root {
		if d.root == nil {
			return e.root
		}
		return d.root
	}
	n := join(d.root, e.root)
	n.base = d.root.base
	if e.created > d.created {
		n.base = e.root.base
	}
	return n
}

func joinDots(a, b []Dot1) []Dot1 {
	if len(b) == 1 {
		return joinDot(a, b[0])
	}
	out := a
	for _, e := range b {
		out = joinDot(out, e)
	}
	return out
}

func joinDot(a []Dot1, e Dot1) []Dot1 {
	i, found := slices.BinarySearchFunc(a, e, func(x, y Dot1) int { return int(x.Origin) - int(y.Origin) })
	if found && a[i].Seq >= e.Seq {
		return a
	}
	out := slices.Clone(a)
	if found {
		out[i] = e
		return out
	}
	return slices.Insert(out, i, e)
}

// Visible is the document as the application sees it, nil if it is deleted or not there.
func (d Doc) Visible() bson.D {
	if !d.Alive() || d.root == nil {
		return nil
	}
	out := make(bson.D, 0, len(d.root.kids)+1)
	out = append(out, bson.E{Key: "_id", Value: d.id})
	return d.root.appendFields(out)
}
