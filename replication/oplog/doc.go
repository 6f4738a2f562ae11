// Package oplog is the durable log of one node: every change of every origin that this node has seen, in the order of
// each origin, on Pebble. It is what peers are served from and what a node starts again from.
//
// An entry that Append returned for is on disk. All who wait at the same time share one fsync. The payload is opaque: the
// log knows who issued an entry (origin), as its how-many-th (seq), and when (HLC), never what it means. Beside the
// entries lie what must not be lost with them: sessions' results for retries, checkpoints of peers, the clock's
// high-water mark. All of it changes in the same atomic step as the entries it belongs to.
//
// It never decides what to forget (Truncate is told), never blocks on a peer and never applies anything.
//
// How it fails: a full budget is a *BudgetError before anything is written. A record that does not pass its checksum is a
// *DamageError that names origin and sequences; what lies before and after stays readable. A disk that fails under a
// write or an fsync makes the log ErrFailed for good: what was on its way is unknown, so the process has to start again
// and recover. (Pebble panics by itself when its directory can't be synced, to the same end.) The format is drawn in FORMAT.md.
package oplog
