// Package sim runs a few core machines against a backend, a log, clocks and a network that fail, and then asks whether
// every promise was kept. A run is a function of its seed: the same number replays the same history, event by event.
//
// What fails: processes are killed between any two steps (at every named step of the write path), power is cut (what was
// not durable is lost), the backend does not answer and lands the write late, or never, messages are lost, doubled,
// reordered and cut off one way or both, clocks are off and step. What never happens here: a backend that loses what it
// acknowledged, a log that returns other bytes than it took.
//
// The package is for tests and replays; nothing that ships imports it.
package sim
