// Package core is one node of the replicator as a pure state machine: Step takes an event and answers with effects.
// Time, randomness, the backend, the log and the network are outside; whoever drives the machine brings their answers
// as events, in any order and as late as they come. The same events give the same effects, so that a simulated history
// replays bit for bit, and the daemon runs the very code that was simulated.
//
// The promises, and where they are kept:
//   - a local write is in the backend, then in the log, then (durability: pair) in the log of a node of the same PoP,
//     then acknowledged (request.go, store.go, ownlog.go). The document is the write-ahead record: what the backend has
//     and the log has not is found again after a crash (recover.go), also when the backend lands it late;
//   - a document is locked from before it is read until its entry is durable, so it holds at most one unlogged write;
//   - entries of all origins are logged before they are applied, applied in each origin's order and after what they
//     depend on, and handed on to whoever lacks them (apply.go, peer.go);
//   - a delete is a tombstone first; it is forgotten when every member has it and has told everything it wrote before
//     (watermark.go);
//   - a client's operation that is sent again is answered, not done again (session.go).
//
// The machine is not safe for concurrent use and never blocks. An event that contradicts the contract (an answer to
// nothing asked) is ignored. It is one machine's memory: whoever drives it bounds how many requests are open.
package core
