// Package stream carries the log's entries between nodes. Every node dials every peer and pulls: it says how far it is,
// the peer serves from its log, of all origins, so that a node that can't reach an origin gets its entries through a third.
// For each origin one peer is asked at a time, the origin itself where it can be reached.
//
// One connection a direction: TLS 1.3 with both ends' names checked, frames of our own (FORMAT.md). What may
// be on its way is granted in bytes by who receives, so that a slow peer costs its own connection and nothing else. A
// heartbeat each second carries clock and progress; silence ends the connection, which is dialed again with growing,
// jittered pauses. A version and the one before understand each other: the lower one's frames are spoken, and kinds that
// are not known are skipped.
//
// It never decides what an entry means or whether it may be applied: a Sink does. It never holds an entry back to order it
// against other connections'; on one connection entries come in the order of their stamps.
package stream
