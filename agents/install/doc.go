// Package install turns a machine in its provider's rescue system into a locked, encrypted Debian: a list of small
// steps, each of which looks whether it is already done, so that a worker killed anywhere and started again with the
// same request ends at the same machine. It wipes a disk only after the guards of guard.go, at most once a run, and
// refuses to touch anything outside of a rescue system.
//
// The work is done by a detached worker ([Work]); [Handler] starts it, joins it, and feeds it the image
// (docs/protocols/exchange.md). Keys live in the worker's memory and in pipes to cryptsetup, never in a file.
package install
